/* Rows of maps, and products of them with small matrices, for kernels that take a row through several steps at once.
 *
 * Maps are (height, width, channels) without gaps. Inside a kernel, a row is (vectors of channels, pixels, lanes), with a
 * pixel of zeros on both sides, and channels are filled up with zeros. Plain C with GNU vector extensions.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
#define LANES 16
#define BLOCK 8 /* rows of a product that are in registers, each of three vectors */
#else
#define LANES 8
#define BLOCK 4
#endif
#define INLINE static inline __attribute__((always_inline))
#define CACHE (1 << 20) /* bytes of all rows that are kept */

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

/* A row of zeros, and the last three of a step; the row y has place y % 3 + 1. */
typedef struct { row rows[4]; int64_t height; } window;

static inline window new_window(int64_t vectors, int64_t width, int64_t height)
{
    window w = {.height = height};
    for (int i = 0; i < 4; i++)
        w.rows[i] = new_row(vectors, width);
    return w;
}

static inline void free_window(window *w)
{
    for (int i = 0; i < 4; i++)
        free_row(w->rows[i]);
}

static inline row at(const window *w, int64_t y) { return w->rows[y < 0 || y >= w->height ? 0 : y % 3 + 1]; }

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

/* Row i of the left factor of a product begins i * row_step numbers on; its numbers follow in groups of `group`, each
 * `step` apart, groups `group_step` apart. In bfloat16, a "number" is a pair of them. */
typedef struct { const float *first; int64_t row_step, step, group, group_step; } factor;

INLINE vec with_product(vec sum, float number, vec right, int half)
{
#ifdef __AVX512BF16__
    if (half)
        return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_ps(number), (__m512bh)right);
#endif
    (void)half;
    return sum + number * right;
}

/* BLOCK rows and `vectors` vectors of a product, in registers. */
INLINE void block(factor a, const float *b, int64_t b_step, int64_t b_apart, int64_t count, vec *to, int64_t row_step,
                  int64_t apart, int vectors, int add, int half)
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
                sums[i][0] = with_product(sums[i][0], number, r0, half);
                if (vectors > 1)
                    sums[i][1] = with_product(sums[i][1], number, r1, half);
                if (vectors > 2)
                    sums[i][2] = with_product(sums[i][2], number, r2, half);
            }
        }
        a.first += a.group_step;
    }
    for (int i = 0; i < BLOCK; i++)
        for (int v = 0; v < vectors; v++)
            to[i * row_step + v * apart] = add ? to[i * row_step + v * apart] + sums[i][v] : sums[i][v];
}

INLINE void any_vectors(factor a, const float *b, int64_t b_step, int64_t b_apart, int64_t count, vec *to,
                        int64_t row_step, int64_t apart, int64_t vectors, int add, int half)
{
    if (vectors >= 3)
        block(a, b, b_step, b_apart, count, to, row_step, apart, 3, add, half);
    else if (vectors == 2)
        block(a, b, b_step, b_apart, count, to, row_step, apart, 2, add, half);
    else
        block(a, b, b_step, b_apart, count, to, row_step, apart, 1, add, half);
}

/* The first three vectors of a product, or all, where there are fewer. */
static inline void any_block(factor a, const float *b, int64_t b_step, int64_t b_apart, int64_t count, vec *to,
                             int64_t row_step, int64_t apart, int64_t vectors, int add, int half)
{
    if (half)
        any_vectors(a, b, b_step, b_apart, count, to, row_step, apart, vectors, add, 1);
    else
        any_vectors(a, b, b_step, b_apart, count, to, row_step, apart, vectors, add, 0);
}

/* The weight of a 1x1 convolution; `numbers` are (vectors of outputs, inputs, lanes). With `half`, they are in bfloat16, and
 * pairs of inputs lie side by side. */
typedef struct { vec *numbers; int64_t inputs, vectors; int half; } matrix;

/* (outputs, inputs) -> (vectors of outputs, inputs, lanes) */
static inline void pack(const float *from, int64_t outputs, int64_t inputs, vec *to)
{
    for (int64_t o = 0; o < outputs; o++)
        for (int64_t i = 0; i < inputs; i++)
            ((float *)to)[(o / LANES * inputs + i) * LANES + o % LANES] = from[o * inputs + i];
}

static inline matrix packed(const float *from, int64_t outputs, int64_t inputs)
{
    int64_t vectors = parts(outputs, LANES);
    matrix to = {room(sizeof(vec) * vectors * inputs), inputs, vectors, 0};
    pack(from, outputs, inputs, to.numbers);
    return to;
}

/* Two weights, for the left and the right half of the channels. */
static inline matrix packed_halves(const float *left, const float *right, int64_t outputs, int64_t inputs)
{
    int64_t vectors = parts(outputs, LANES);
    matrix to = {room(sizeof(vec) * 2 * vectors * inputs), inputs, 2 * vectors, 0};
    pack(left, outputs, inputs, to.numbers);
    pack(right, outputs, inputs, to.numbers + vectors * inputs);
    return to;
}

#ifdef __AVX512BF16__
/* Rounded to bfloat16, which is the upper half of the bits. */
INLINE ints rounded(vec v) { return (ints)v + 0x7fff + (((ints)v >> 16) & 1); }

/* The weight in bfloat16, in the same place. */
static inline matrix in_half(matrix m)
{
    int64_t pairs = parts(m.inputs, 2);
    for (int64_t v = 0; v < m.vectors; v++)
        for (int64_t k = 0; k < pairs; k++) {
            const vec *from = m.numbers + v * m.inputs + 2 * k;
            ints low = rounded(from[0]), high = 2 * k + 1 < m.inputs ? rounded(from[1]) : (ints){};
            m.numbers[v * pairs + k] = (vec)((high & ~0xffff) | ((low >> 16) & 0xffff));
        }
    return (matrix){m.numbers, m.inputs, m.vectors, 1};
}

/* The numbers of each vector in bfloat16, in the first half of its place. */
static inline void row_in_half(row r, int64_t width)
{
    for (int64_t v = 0; v < r.vectors; v++)
        for (int64_t x = 0; x < width; x++) {
            vec *here = r.first + v * r.step + x;
            *(__m256bh *)here = _mm512_cvtneps_pbh((__m512)*here);
        }
}
#else
static inline matrix in_half(matrix m) { return m; }
static inline void row_in_half(row r, int64_t width) { (void)r, (void)width; }
#endif

/* A 1x1 convolution; with `add`, the result is added to what is there. A weight in bfloat16 leaves `from` unusable. */
static inline void mix_channels(row from, matrix weight, int64_t width, row to, int add)
{
    int64_t each = weight.half ? 2 : 1, count = parts(weight.inputs, each);
    if (weight.half)
        row_in_half(from, width);
    for (int64_t v = 0; v < to.vectors; v += 3)
        for (int64_t x = 0; x < width; x += BLOCK) {
            factor pixels = {(float *)(from.first + x), LANES, 1, LANES / each, from.step * LANES};
            any_block(pixels, (float *)(weight.numbers + v * count), LANES, count * LANES, count,
                      to.first + v * to.step + x, 1, to.step, to.vectors - v, add, weight.half);
        }
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
