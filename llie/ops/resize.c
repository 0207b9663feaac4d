/* Bilinear resizing by two, fused with the convolution before or after it, row by row, on a CPU; see resizing.py. */
#include "mixing.h"

/* height and width: of the smaller map; taps: columns of the kernel that acts on the other one. */
typedef struct { int64_t height, width, channels, outputs, taps; } shape;

/* Pixels that lie between those of two rows. */
INLINE void between(const vec *from, const vec *other, float weight, int64_t count, vec *to)
{
    for (int64_t x = 0; x < count; x++)
        to[x] = from[x] + weight * (other[x] - from[x]);
}

/* PReLU. */
INLINE void activate(row r, float slope, int64_t width)
{
    for (int64_t v = 0; v < r.vectors; v++)
        for (int64_t x = 0; x < width; x++) {
            vec value = r.first[v * r.step + x];
            ints negative = value < 0;
            r.first[v * r.step + x] = (vec)((negative & (ints)(value * slope)) | (~negative & (ints)value));
        }
}

/* ---- half the size, and a 3x3 convolution ---- */

/* The map is twice as high and wide as `s`; a weight for each of the nine places of the kernel. */
static void halve_area(const float *map, int64_t map_rows, const float *down, const float *across, const matrix *weight,
                       float slope, float *to, int64_t first, shape s, area wanted)
{
    int64_t columns = wanted.right - wanted.left, vectors = parts(s.channels, LANES);
    int64_t width = 2 * columns + 2;
    int64_t left = max(2 * wanted.left - 1, 0), right = min(2 * wanted.right + 1, 2 * s.width);
    row rows[4], line = new_row(vectors, width), tap = new_row(vectors, columns);
    row result = new_row(parts(s.outputs, LANES), columns);
    for (int i = 0; i < 4; i++)
        rows[i] = new_row(vectors, width);
    for (int64_t y = wanted.top; y < wanted.bottom; y++) {
        for (int i = y == wanted.top ? 0 : 2; i < 4; i++) { /* rows 2 y - 1 to 2 y + 2; the first two are known */
            int64_t from = 2 * y - 1 + i;
            row here = rows[from & 3];
            here.first += left - (2 * wanted.left - 1);
            if (from >= 0 && from < map_rows)
                read_row(map + (from * 2 * s.width + left) * s.channels, s.channels, right - left, here);
            else
                for (int64_t v = 0; v < vectors; v++)
                    memset(here.first + v * here.step, 0, sizeof(vec) * (right - left));
        }
        for (int i = 0; i < 3; i++) {
            row above = rows[(2 * y - 1 + i) & 3], below = rows[(2 * y + i) & 3];
            for (int64_t v = 0; v < vectors; v++)
                between(above.first + v * above.step, below.first + v * below.step, down[y], width,
                        line.first + v * line.step);
            for (int j = 0; j < 3; j++) {
                for (int64_t v = 0; v < vectors; v++) {
                    const vec *from = line.first + v * line.step + j;
                    for (int64_t x = 0; x < columns; x++)
                        between(from + 2 * x, from + 2 * x + 1, across[wanted.left + x], 1,
                                tap.first + v * tap.step + x);
                }
                mix_channels(tap, weight[3 * i + j], columns, result, i + j > 0);
            }
        }
        if (slope != 1)
            activate(result, slope, columns);
        write_row(result, 0, columns, to + ((y - first) * s.width + wanted.left) * s.outputs, s.outputs);
    }
    for (int i = 0; i < 4; i++)
        free_row(rows[i]);
    free_row(line), free_row(tap), free_row(result);
}

/* Rows first, first + 1, ..., stop - 1 of the result; zeros are beyond the rows of the map. `down` and `across` say how
 * far results lie between two values; `weight` is (3, 3, outputs, channels), used in a form; negative sums times `slope`. */
void halved(const float *map, int64_t map_rows, const float *weight, const float *down, const float *across, float slope,
            float *to, shape s, int64_t images, int64_t first, int64_t stop, int form, int threads)
{
    matrix all[9];
    for (int i = 0; i < 9; i++)
        all[i] = in_form(packed(weight + i * s.outputs * s.channels, s.outputs, s.channels), form);
    grid g = divided((area){first, stop, 0, s.width}, 4 * (12 * s.channels + s.outputs), images, threads);
    int64_t each = g.down * g.across;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t t = 0; t < images * each; t++)
        halve_area(map + t / each * map_rows * 2 * s.width * s.channels, map_rows, down, across, all,
                   slope, to + t / each * (stop - first) * s.width * s.outputs, first, s, part(g, t % each));
    for (int i = 0; i < 9; i++)
        free(all[i].numbers);
}

/* ---- twice the size, and a convolution of another map ---- */

/* Where a row or column of the larger map lies in the smaller one, as PyTorch finds it with aligned corners. */
static int64_t place(int64_t index, int64_t size, float *beyond)
{
    float scale = size > 1 ? (float)(size - 1) / (2 * size - 1) : 0, at = scale * index;
    int64_t found = min((int64_t)at, size - 1);
    *beyond = at - found;
    return found;
}

/* Adds products of a weight with numbers that lie one after another, from each pixel of a row on; it reads a little beyond
 * the last one. */
static void add_convolution(const float *pixels, int64_t channels, matrix weight, int64_t width, row to)
{
    for (int64_t v = 0; v < to.vectors; v += 3)
        some_vectors((factor){pixels, channels, 1, weight.inputs, 0}, (float *)(weight.numbers + v * weight.inputs), LANES,
                     weight.inputs * LANES, weight.inputs, width, to.first + v * to.step, 1, to.step, to.vectors - v, 1,
                     IN_FLOAT, (scales){0, 0});
}

/* The map begins with row `begin`; the other one and the result with row `first`. */
static void double_area(const float *map, int64_t begin, const float *skip, matrix weight, float slope, float *to,
                        int64_t first, shape s, area wanted)
{
    float beyond;
    int64_t columns = wanted.right - wanted.left, vectors = parts(s.outputs, LANES);
    int64_t left = place(wanted.left, s.width, &beyond);
    int64_t right = min(place(wanted.right - 1, s.width, &beyond) + 2, s.width);
    int64_t known[2] = {-1, -1};
    row rows[2], line = new_row(vectors, right - left), result = new_row(vectors, columns);
    int64_t numbers = (columns + s.taps - 1) * s.channels, wide = 2 * s.width + s.taps - 1;
    float *other = room(4 * (numbers + BLOCK * s.channels));
    for (int i = 0; i < 2; i++)
        rows[i] = new_row(vectors, right - left);
    for (int64_t y = wanted.top; y < wanted.bottom; y++) {
        int64_t above = place(y, s.height, &beyond), below = min(above + 1, s.height - 1);
        for (int64_t from = above; from <= below; from++)
            if (known[from & 1] != from) {
                read_row(map + ((from - begin) * s.width + left) * s.outputs, s.outputs, right - left, rows[from & 1]);
                known[from & 1] = from;
            }
        for (int64_t v = 0; v < vectors; v++)
            between(rows[above & 1].first + v * line.step, rows[below & 1].first + v * line.step, beyond, right - left,
                    line.first + v * line.step);
        for (int64_t x = 0; x < columns; x++) {
            int64_t from = place(wanted.left + x, s.width, &beyond) - left;
            int64_t next = min(from + 1, right - left - 1);
            for (int64_t v = 0; v < vectors; v++)
                between(line.first + v * line.step + from, line.first + v * line.step + next, beyond, 1,
                        result.first + v * result.step + x);
        }
        memcpy(other, skip + ((y - first) * wide + wanted.left) * s.channels, 4 * numbers);
        add_convolution(other, s.channels, weight, columns, result);
        activate(result, slope, columns);
        write_row(result, 0, columns, to + ((y - first) * 2 * s.width + wanted.left) * s.outputs, s.outputs);
    }
    for (int i = 0; i < 2; i++)
        free_row(rows[i]);
    free_row(line), free_row(result), free(other);
}

/* The map (outputs), resized to twice the size, plus a convolution of another map of that height (channels) by a kernel of
 * one row; negative sums times `slope`. The weight is (outputs, taps, channels). Rows first, first + 1, ..., stop - 1 of the
 * result, to which the rows of the other map belong; those of the map begin with row `begin`, and there are `map_rows`. */
void doubled(const float *map, int64_t begin, int64_t map_rows, const float *skip, const float *weight, float slope,
             float *to, shape s, int64_t images, int64_t first, int64_t stop, int threads)
{
    matrix packed_weight = packed(weight, s.outputs, s.taps * s.channels);
    grid g = divided((area){first, stop, 0, 2 * s.width}, 4 * (4 * s.outputs + s.channels), images, threads);
    int64_t each = g.down * g.across, pixels = (stop - first) * 2 * s.width;
    int64_t numbers = (stop - first) * (2 * s.width + s.taps - 1) * s.channels;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t t = 0; t < images * each; t++) {
        int64_t i = t / each;
        double_area(map + i * map_rows * s.width * s.outputs, begin, skip + i * numbers, packed_weight, slope,
                    to + i * pixels * s.outputs, first, s, part(g, t % each));
    }
    free(packed_weight.numbers);
}
