/* Rows of maps, and products of them with small matrices, for kernels that take a row through several steps at once.
 *
 * Maps are (height, width, channels) without gaps. Inside a kernel, a row is (vectors of channels, pixels, lanes), with a
 * pixel of zeros on both sides, and channels are filled up with zeros. Plain C with GNU vector extensions.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#define BLOCK 8 /* rows of a product that are in registers, each of three vectors */
#else
#define LANES 8
#define BLOCK 4
#endif
#define INLINE static inline __attribute__((always_inline))
#define CACHE (1 << 19) /* bytes of all rows that are kept */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* at any address */
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef float quad __attribute__((vector_size(16)));

INLINE vec load(const float *from) { return *(const loose *)from; }

static inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t parts(int64_t n, int64_t size) { return (n + size - 1) / size; }

static inline void *room(int64_t bytes)
{
    void *found = aligned_alloc(64, parts(bytes, 64) * 64);
    if (!found)
        abort();
    return memset(found, 0, bytes);
}

/* Rows and columns of a map: those whose results are wanted, and those around them. */
typedef struct { int64_t top, bottom, left, right; } area;

/* ---- rows ---- */

typedef struct { vec *first; int64_t step, vectors; } row; /* step: vectors from one vector of channels to the next */

static inline int64_t step_of(int64_t width) { return parts(width, BLOCK) * BLOCK + 2; }

static inline row new_row(int64_t vectors, int64_t width)
{
    return (row){(vec *)room(sizeof(vec) * vectors * step_of(width)) + 1, step_of(width), vectors};
}

static inline void free_row(row r) { free(r.first - 1); }

/* A product wrote to the pixels that fill up its last block; the one beyond the edge must be zero. */
static inline void end_at(row r, int64_t width)
{
    for (int64_t v = 0; v < r.vectors; v++)
        r.first[v * r.step + width] = (vec){};
}

/* The last vector of channels may be a part of one. */
static inline void read_row(const float *map, int64_t channels, int64_t width, row to)
{
    int64_t whole = channels / LANES, rest = channels % LANES;
    for (int64_t x = 0; x < width; x++) {
        const float *from = map + x * channels;
        for (int64_t v = 0; v < whole; v++)
            to.first[v * to.step + x] = load(from + v * LANES);
        if (rest) {
            vec last = {};
            for (int64_t i = 0; i < rest; i++)
                last[i] = from[whole * LANES + i];
            to.first[whole * to.step + x] = last;
        }
    }
}

static inline void write_row(row from, int64_t left, int64_t right, float *map, int64_t channels)
{
    int64_t whole = channels / LANES, rest = channels % LANES;
    for (int64_t x = left; x < right; x++) {
        float *to = map + x * channels;
        for (int64_t v = 0; v < whole; v++)
            *(loose *)(to + v * LANES) = from.first[v * from.step + x];
        for (int64_t i = 0; i < rest; i++)
            to[whole * LANES + i] = from.first[whole * from.step + x][i];
    }
}

/* ---- products ---- */

/* `rows` rows and `vectors` vectors of a matrix product, in registers. Row i of the left factor begins i * row_step
 * numbers on; its numbers follow in groups of `group`, each `step` apart, groups `group_step` apart. */
typedef struct { const float *first; int64_t row_step, step, group, group_step; } factor;

INLINE void block(factor a, const float *b, int64_t b_step, int64_t b_apart, int64_t count, vec *to, int64_t row_step,
                  int64_t apart, int vectors, int add)
{
    vec sums[BLOCK][3] = {};
    for (int64_t done = 0; done < count; done += a.group) {
        int64_t here = min(a.group, count - done);
        const float *left = a.first;
        for (int64_t k = 0; k < here; k++, left += a.step, b += b_step) {
            vec r0 = load(b), r1 = vectors > 1 ? load(b + b_apart) : r0;
            vec r2 = vectors > 2 ? load(b + 2 * b_apart) : r0;
            for (int i = 0; i < BLOCK; i++) {
                float number = left[i * a.row_step];
                sums[i][0] += number * r0;
                if (vectors > 1)
                    sums[i][1] += number * r1;
                if (vectors > 2)
                    sums[i][2] += number * r2;
            }
        }
        a.first += a.group_step;
    }
    for (int i = 0; i < BLOCK; i++)
        for (int v = 0; v < vectors; v++)
            to[i * row_step + v * apart] = add ? to[i * row_step + v * apart] + sums[i][v] : sums[i][v];
}

static inline void any_block(factor a, const float *b, int64_t b_step, int64_t b_apart, int64_t count, vec *to,
                      int64_t row_step, int64_t apart, int64_t vectors, int add)
{
    if (vectors >= 3)
        add ? block(a, b, b_step, b_apart, count, to, row_step, apart, 3, 1)
            : block(a, b, b_step, b_apart, count, to, row_step, apart, 3, 0);
    else if (vectors == 2)
        add ? block(a, b, b_step, b_apart, count, to, row_step, apart, 2, 1)
            : block(a, b, b_step, b_apart, count, to, row_step, apart, 2, 0);
    else
        add ? block(a, b, b_step, b_apart, count, to, row_step, apart, 1, 1)
            : block(a, b, b_step, b_apart, count, to, row_step, apart, 1, 0);
}

/* A 1x1 convolution; `weight` is (vectors, channels, lanes). With `add`, the result is added to what is there. */
static inline void mix_channels(row from, int64_t channels, const vec *weight, int64_t width, row to, int add)
{
    for (int64_t v = 0; v < to.vectors; v += 3)
        for (int64_t x = 0; x < width; x += BLOCK) {
            factor pixels = {(float *)(from.first + x), LANES, 1, LANES, from.step * LANES};
            any_block(pixels, (const float *)(weight + v * channels), LANES, channels * LANES, channels, to.first + v * to.step + x, 1,
                      to.step, to.vectors - v, add);
        }
}

/* (outputs, inputs) -> (vectors of outputs, inputs, lanes) */
static inline void pack(const float *from, int64_t outputs, int64_t inputs, vec *to)
{
    for (int64_t o = 0; o < outputs; o++)
        for (int64_t i = 0; i < inputs; i++)
            ((float *)to)[(o / LANES * inputs + i) * LANES + o % LANES] = from[o * inputs + i];
}

static inline vec *packed(const float *from, int64_t outputs, int64_t inputs)
{
    vec *to = room(sizeof(vec) * parts(outputs, LANES) * inputs);
    pack(from, outputs, inputs, to);
    return to;
}

/* Two weights, for the left and the right half of the channels. */
static inline vec *packed_halves(const float *left, const float *right, int64_t outputs, int64_t inputs)
{
    int64_t vectors = parts(outputs, LANES);
    vec *to = room(sizeof(vec) * 2 * vectors * inputs);
    pack(left, outputs, inputs, to);
    pack(right, outputs, inputs, to + vectors * inputs);
    return to;
}

/* ---- parts of a map ---- */

/* Parts of an area, in rows and columns; narrow enough for the cache, and one for each thread. */
typedef struct { area whole; int64_t down, across; } grid;

static inline grid divided(area whole, int64_t bytes_of_column, int64_t images, int threads)
{
    int64_t width = whole.right - whole.left, height = whole.bottom - whole.top;
    int64_t across = max(1, parts(width, max(48, CACHE / bytes_of_column)));
    return (grid){whole, max(1, min(parts(threads, images * across), height / 8)), across};
}

static inline area part(grid g, int64_t number)
{
    area a = g.whole;
    int64_t rows = parts(a.bottom - a.top, g.down), columns = parts(a.right - a.left, g.across);
    int64_t top = a.top + number / g.across * rows, left = a.left + number % g.across * columns;
    return (area){top, min(top + rows, a.bottom), left, min(left + columns, a.right)};
}

static inline area widened(area a, int64_t by, int64_t height, int64_t width)
{
    return (area){max(a.top - by, 0), min(a.bottom + by, height), max(a.left - by, 0), min(a.right + by, width)};
}
