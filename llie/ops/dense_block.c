/* Residual dense blocks on rows that come in turn; see dense_block.py.
 *
 * A band of columns keeps those rows that later ones need; a thread takes it through all layers, a few rows at a time, so
 * that all maps stay in the cache. Maps are (height, width, channels) in float32.
 */
#include <omp.h>

#include "pointwise.h"
#include "winograd.h"

#define TILES 24 /* at a time: a multiple of ROWS */

_Static_assert(TILES % ROWS == 0, "or else products overrun");

/* layers: of `growth` channels each, which read the `width` channels of the input, too. kernels: for the input, and for the
 * map of each layer but the last: of all layers that read it.
 */
typedef struct { int64_t width, growth, layers; const factor *kernels; pointwise fusion; } dense;

/* Columns of the image, first to stop, and those among them whose results it gives, from `inner_first` on: at least ROWS.
 * kept: room for layers + 1 rows of all maps, of which later rows of the result need some.
 */
typedef struct { int64_t first, stop, inner_first, inner_stop; float *kept; } band;

/* Rows of x that are known, and of the result that are computed. */
typedef struct { int64_t known, done; } progress;

/* Rows of a map: its first value, and values from row to row. */
typedef struct { float *values; int64_t row; } rows;

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Maps of a block in memory are: x, that of each layer, and sums of layers that lack some of what they read. */
INLINE int64_t channels_of(dense b, int64_t map)
{
    return map == 0 ? b.width : map <= b.layers ? b.growth : (b.layers - 1) * b.growth;
}

/* How many rows of a map are computed: a layer needs one more row of each map that it reads, unless the image ends. */
INLINE int64_t rows_of(dense b, int64_t map, progress p)
{
    if (map == 0 || !p.done)
        return map == 0 ? p.known : 0;
    return least(p.known, p.done + b.layers - (map <= b.layers ? map : 1));
}

/* The first row in memory. */
INLINE int64_t first_row(progress p) { return most(0, p.done - 1); }

/* Of all maps together. */
INLINE int64_t all_channels(dense b) { return b.width + (2 * b.layers - 1) * b.growth; }

/* Copy the rows of all maps that are needed still into the first rows of the same memory, or of other memory.
 *
 * height, height_to: rows of each map in memory; skipped: those before the first that is needed.
 */
static void copy_kept(dense b, progress p, int64_t columns, float *to, int64_t height_to, const float *from, int64_t height,
                      int64_t skipped)
{
    for (int64_t map = 0; map < b.layers + 2; map++) {
        const int64_t row = columns * channels_of(b, map);
        const int64_t kept = rows_of(b, map, p) - first_row(p);
        if (kept > 0)
            memmove(to, from + skipped * row, 4 * kept * row);
        to += height_to * row;
        from += height * row;
    }
}

/* Compute the next rows of the map of a layer, whose number begins at 1, and add to the sums of later layers. */
static void next_rows_of(dense b, int64_t number, float *const *maps, progress before, progress now, int64_t columns,
                         float *room)
{
    const int64_t n = channels_of(b, number - 1), origin = first_row(before);
    const int64_t begin = rows_of(b, number, before), end = rows_of(b, number, now), height = end - begin;
    if (height <= 0)
        return;
    const int64_t above = begin > 0, seen = least(end + 1, rows_of(b, number - 1, now)) - begin + above;
    const shape of_x = {seen, columns, n, (height + 3) / 4, (columns + 3) / 4, 0};
    shape of_result = of_x;
    of_result.height = height;
    const int64_t tiles = of_x.down * of_x.across, parts = (tiles + TILES - 1) / TILES;
    const int64_t each = ((tiles + parts - 1) / parts + ROWS - 1) / ROWS * ROWS; /* about equal parts */
    /* The map's own channels come first, then those of all later layers. */
    const int64_t later = (b.layers - number) * b.growth, of_sums = (b.layers - 1) * b.growth;
    float *own = maps[number] + (begin - origin) * columns * b.growth;
    float *sums = maps[b.layers + 1] + (begin - origin) * columns * of_sums + (number - 1) * b.growth;
    const map to_sums = {sums, 0, columns * of_sums, of_sums}, no_map = {};
    map added = to_sums;
    added.values = sums - b.growth;
    const output outputs[2] = {
        {{own, 0, columns * b.growth, b.growth}, number > 1 ? added : no_map, b.growth, 1, 0},
        {to_sums, number > 1 ? to_sums : no_map, later, 0, 0},
    };
    const float *x = maps[number - 1] + (begin - above - origin) * columns * n;
    for (int64_t first = 0; first < tiles; first += each)
        convolve_tiles((images){.x = x, .of_x = of_x, .above = above}, b.kernels[number - 1], outputs, later ? 2 : 1, of_result,
                       first, least(each, tiles - first), each, room);
}

/* Combine all maps into rows of the result, to which those of other maps are added; all begin with row `origin`. */
static void fuse(dense b, band of, float *const *maps, progress before, progress now, int64_t origin, const rows *added,
                 int64_t number_added, rows result, float *room)
{
    const int64_t columns = of.stop - of.first, inside = of.inner_first - of.first, width = of.inner_stop - of.inner_first;
    for (int64_t y = before.done; y < now.done; y++) {
        pixels here[b.layers + 1], also[number_added + 1];
        for (int64_t m = 0; m <= b.layers; m++) {
            const int64_t n = channels_of(b, m);
            here[m] = (pixels){maps[m] + ((y - first_row(before)) * columns + inside) * n, n, n};
        }
        also[0] = here[0];
        for (int64_t m = 0; m < number_added; m++)
            also[m + 1] = (pixels){added[m].values + (y - origin) * added[m].row + of.inner_first * b.width, b.width, b.width};
        float *to = result.values + (y - origin) * result.row + of.inner_first * b.width;
        combine_pixels(b.fusion, here, b.layers + 1, also, number_added + 1, to, 0, width, room);
    }
}

INLINE int64_t room_of_layers(dense b)
{
    int64_t size = ROWS * b.fusion.columns;
    for (int64_t number = 1; number <= b.layers; number++)
        size = most(size, room_of_tiles(TILES, channels_of(b, number - 1), b.kernels[number - 1].columns));
    return size;
}

/* Values of room that each thread needs in `next_rows`, for bands of up to so many columns. */
int64_t room_of_thread(dense b, int64_t columns, int64_t at_once)
{
    return room_of_layers(b) + columns * (at_once + b.layers + 1) * all_channels(b);
}

/* Fills rows of the result, before.done to now.done, to which those of other maps are added; x: rows before.known to
 * now.known. now.known is now.done + layers, or the height of the image, if that is less.
 *
 * bands: all columns of the result are the inner ones of a band. at_once: rows to take through all layers before others.
 * room: for each thread, `room_of_thread`.
 */
void next_rows(dense b, const band *bands, int64_t number, progress before, progress now, rows x, const rows *added,
               int64_t number_added, rows result, int64_t at_once, float *room, int64_t room_of_each, int threads)
{
    const int64_t height = at_once + b.layers + 1; /* of each map in memory */
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t i = 0; i < number; i++) {
        const band of = bands[i];
        const int64_t columns = of.stop - of.first;
        float *own = room + omp_get_thread_num() * room_of_each, *maps[b.layers + 2];
        maps[0] = own + room_of_layers(b);
        for (int64_t map = 1; map < b.layers + 2; map++)
            maps[map] = maps[map - 1] + height * columns * channels_of(b, map - 1);
        copy_kept(b, before, columns, maps[0], height, of.kept, b.layers + 1, 0);
        for (progress p = before, next; p.done < now.done; p = next) {
            next.done = least(p.done + at_once, now.done);
            next.known = least(next.done + b.layers, now.known);
            for (int64_t y = p.known; y < next.known; y++)
                memcpy(maps[0] + (y - first_row(p)) * columns * b.width,
                       x.values + (y - before.known) * x.row + of.first * b.width, 4 * columns * b.width);
            for (int64_t layer = 1; layer <= b.layers; layer++)
                next_rows_of(b, layer, maps, p, next, columns, own);
            fuse(b, of, maps, p, next, before.done, added, number_added, result, own);
            const int last = next.done == now.done;
            copy_kept(b, next, columns, last ? of.kept : maps[0], last ? b.layers + 1 : height, maps[0], height,
                      first_row(next) - first_row(p));
        }
    }
}
