/* 1x1 convolutions of rows (rows.h): products with small matrices, in three forms. Plain C with GNU vector extensions. */
#include "integers.h"
#include "rows.h"

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

/* In float32; in bfloat16, on processors that have it; in integers, see integers.h. */
enum { IN_FLOAT, IN_HALF, IN_INTEGERS };

/* Row i of the left factor of a product begins i * row_step numbers on; its numbers follow in groups of `group`, each
 * `step` apart, groups `group_step` apart. In bfloat16 and in integers, a "number" is a pair of them. */
typedef struct { const float *first; int64_t row_step, step, group, group_step; } factor;

/* What rows and columns of a product in integers are multiplied by. */
typedef struct { const float *of_rows; const vec *of_columns; } scales;

INLINE vec with_product(vec sum, float number, vec right, int form)
{
#if HAS_INTEGERS
    if (form == IN_INTEGERS) {
        int32_t pair;
        memcpy(&pair, &number, sizeof pair);
        return (vec)plus_products((integers)sum, (integers)((ints){} + pair), (integers)right);
    }
#endif
#ifdef __AVX512BF16__
    if (form == IN_HALF)
        return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_ps(number), (__m512bh)right);
#endif
    (void)form;
    return sum + number * right;
}

/* BLOCK rows and `vectors` vectors of a product, in registers. */
INLINE void block(factor a, const float *b, int64_t b_step, int64_t b_apart, int64_t count, vec *to, int64_t row_step,
                  int64_t apart, int vectors, int add, int form, scales of)
{
    vec sums[BLOCK][3] = {};
    for (int64_t done = 0; done < count; done += a.group) {
        int64_t here = min(a.group, count - done);
        const float *left = a.first;
        for (int64_t k = 0; k < here; k++, left += a.step, b += b_step) {
            vec r0 = load(b), r1 = vectors > 1 ? load(b + b_apart) : r0;
            vec r2 = vectors > 2 ? load(b + 2 * b_apart) : r0;
            in_register(r0);
            in_register(r1);
            if (form == IN_FLOAT) /* integers need one for products */
                in_register(r2);
            for (int i = 0; i < BLOCK; i++) {
                float number = left[i * a.row_step];
                sums[i][0] = with_product(sums[i][0], number, r0, form);
                if (vectors > 1)
                    sums[i][1] = with_product(sums[i][1], number, r1, form);
                if (vectors > 2)
                    sums[i][2] = with_product(sums[i][2], number, r2, form);
            }
        }
        a.first += a.group_step;
    }
    for (int i = 0; i < BLOCK; i++)
        for (int v = 0; v < vectors; v++) {
            vec sum = sums[i][v];
            if (form == IN_INTEGERS)
                sum = __builtin_convertvector((ints)sum, vec) * (of.of_rows[i] * of.of_columns[v]);
            to[i * row_step + v * apart] = add ? to[i * row_step + v * apart] + sum : sum;
        }
}

INLINE void blocks(factor a, const float *b, int64_t b_step, int64_t b_apart, int64_t count, int64_t rows, vec *to,
                   int64_t row_step, int64_t apart, int vectors, int add, int form, scales of)
{
    for (int64_t row = 0; row < rows; row += BLOCK) {
        block(a, b, b_step, b_apart, count, to + row * row_step, row_step, apart, vectors, add, form, of);
        a.first += BLOCK * a.row_step;
        of.of_rows += form == IN_INTEGERS ? BLOCK : 0;
    }
}

INLINE void any_vectors(factor a, const float *b, int64_t b_step, int64_t b_apart, int64_t count, int64_t rows, vec *to,
                        int64_t row_step, int64_t apart, int64_t vectors, int add, int form, scales of)
{
    if (vectors >= 3)
        blocks(a, b, b_step, b_apart, count, rows, to, row_step, apart, 3, add, form, of);
    else if (vectors == 2)
        blocks(a, b, b_step, b_apart, count, rows, to, row_step, apart, 2, add, form, of);
    else
        blocks(a, b, b_step, b_apart, count, rows, to, row_step, apart, 1, add, form, of);
}

/* The first three vectors of a product, or all, where there are fewer; rows up to a multiple of BLOCK are written. */
static inline void some_vectors(factor a, const float *b, int64_t b_step, int64_t b_apart, int64_t count, int64_t rows,
                                vec *to, int64_t row_step, int64_t apart, int64_t vectors, int add, int form, scales of)
{
    if (form == IN_INTEGERS)
        any_vectors(a, b, b_step, b_apart, count, rows, to, row_step, apart, vectors, add, IN_INTEGERS, of);
    else if (form == IN_HALF)
        any_vectors(a, b, b_step, b_apart, count, rows, to, row_step, apart, vectors, add, IN_HALF, of);
    else
        any_vectors(a, b, b_step, b_apart, count, rows, to, row_step, apart, vectors, add, IN_FLOAT, of);
}

/* The weight of a 1x1 convolution; `numbers` are (vectors of outputs, inputs, lanes). In bfloat16 and in integers, pairs of
 * inputs lie side by side. scales: of the outputs, if it is in integers. */
typedef struct { vec *numbers; int64_t inputs, vectors; int form; const vec *scales; } matrix;

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
    matrix to = {room(sizeof(vec) * vectors * inputs), inputs, vectors, IN_FLOAT, 0};
    pack(from, outputs, inputs, to.numbers);
    return to;
}

/* Two weights, for the left and the right half of the channels. */
static inline matrix packed_halves(const float *left, const float *right, int64_t outputs, int64_t inputs)
{
    int64_t vectors = parts(outputs, LANES);
    matrix to = {room(sizeof(vec) * 2 * vectors * inputs), inputs, 2 * vectors, IN_FLOAT, 0};
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
    return (matrix){m.numbers, m.inputs, m.vectors, IN_HALF, 0};
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

#if HAS_INTEGERS
/* Numbers of at most 2^22, rounded to integers. */
INLINE ints nearest(vec v)
{
    const float big = 0x1.8p23f; /* with it added, a number has no fraction, and its last bits are the integer */
    return (ints)(v + big) - (ints)((vec){} + big);
}

/* The weight in integers, in the same place; the scales of its outputs come after it. */
static inline matrix in_integers(matrix m)
{
    int64_t pairs = parts(m.inputs, 2);
    if (m.inputs > DEPTH || m.inputs < 4)
        return m;
    vec *of_outputs = room(sizeof(vec) * m.vectors);
    for (int64_t v = 0; v < m.vectors; v++) {
        vec factor = {};
        for (int lane = 0; lane < LANES; lane++) {
            const float *column = (float *)(m.numbers + v * m.inputs) + lane;
            factor[lane] = factor_of_column(column, m.inputs, LANES, MOST_OF_COLUMN);
            of_outputs[v][lane] = scale_of_factor(factor[lane]);
        }
        for (int64_t k = 0; k < pairs; k++) {
            const vec *from = m.numbers + v * m.inputs + 2 * k;
            ints low = nearest(from[0] * factor), high = {};
            if (2 * k + 1 < m.inputs)
                high = nearest(from[1] * factor);
            m.numbers[v * pairs + k] = (vec)((high << 16) | (low & 0xffff));
        }
    }
    memcpy(m.numbers + m.vectors * pairs, of_outputs, sizeof(vec) * m.vectors);
    free(of_outputs);
    return (matrix){m.numbers, m.inputs, m.vectors, IN_INTEGERS, m.numbers + m.vectors * pairs};
}

/* The numbers of each vector in integers, in the first half of its place; scales: of the pixels. */
static inline void row_in_integers(row r, int64_t width, float *to)
{
    for (int64_t x = 0; x < width; x++) {
        magnitudes most = {};
        for (int64_t v = 0; v < r.vectors; v++)
            for (int i = 0; i < LANES; i += CHUNK)
                most = larger(most, _mm256_loadu_ps((float *)(r.first + v * r.step + x) + i));
        const float largest = largest_of(most);
        const __m256 factor = _mm256_set1_ps(largest > 0 ? MOST_LEFT / largest : 0);
        to[x] = largest / MOST_LEFT;
        for (int64_t v = 0; v < r.vectors; v++) {
            float *here = (float *)(r.first + v * r.step + x);
            for (int i = 0; i < LANES; i += CHUNK)
                put_integers((int16_t *)here + i, _mm256_mul_ps(factor, _mm256_loadu_ps(here + i)));
        }
    }
}
#else
static inline matrix in_integers(matrix m) { return m; }
static inline void row_in_integers(row r, int64_t width, float *to) { (void)r, (void)width, (void)to; }
#endif

/* The weight in another form, in the same place, if the processor has it. */
static inline matrix in_form(matrix m, int form)
{
    return form == IN_HALF ? in_half(m) : form == IN_INTEGERS ? in_integers(m) : m;
}

/* A 1x1 convolution; with `add`, the result is added to what is there. `from` is unusable afterwards, unless the weight is
 * in float32. */
static inline void mix_channels(row from, matrix weight, int64_t width, row to, int add)
{
    int64_t each = weight.form == IN_FLOAT ? 1 : 2, count = parts(weight.inputs, each);
    float *of_pixels = (float *)(from.first + from.vectors * from.step); /* beyond the last vector of channels */
    if (weight.form == IN_HALF)
        row_in_half(from, width);
    else if (weight.form == IN_INTEGERS)
        row_in_integers(from, width, of_pixels);
    const factor pixels = {(float *)from.first, LANES, 1, LANES / each, from.step * LANES};
    for (int64_t v = 0; v < to.vectors; v += 3)
        some_vectors(pixels, (float *)(weight.numbers + v * count), LANES, count * LANES, count, width,
                     to.first + v * to.step, 1, to.step, to.vectors - v, add, weight.form,
                     (scales){of_pixels, weight.scales + v});
}
