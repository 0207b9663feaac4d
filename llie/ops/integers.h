/* Products of matrices in 16-bit integers: each row of the left factor and each column of the right one is rounded by its
 * own scale. Sums are exact, in 32 bits; twice as fast as float32. Needs AVX2.
 */
#pragma once
#include <stdint.h>
#include <string.h>

#define DEPTH 256 /* numbers in a column that share a scale */

#if defined(__AVX2__) && (defined(__AVX512BW__) || !defined(__AVX512F__))
#include <immintrin.h>
#define HAS_INTEGERS 1
/* Most of a number of the left factor, of one of the right factor, and of the sum of a column: no sum exceeds 32 bits. */
#define MOST_LEFT 4095.0f
#define MOST_RIGHT 32767.0f
#define MOST_OF_COLUMN 500000.0f

/* Sums of pairs of products: one for each of COLUMNS_AT_ONCE columns. */
#if defined(__AVX512BW__)
#define COLUMNS_AT_ONCE 16
#define ROWS_AT_ONCE 8
typedef __m512i integers;
#else
#define COLUMNS_AT_ONCE 8
#define ROWS_AT_ONCE 6
typedef __m256i integers;
#endif

static inline __attribute__((always_inline)) integers plus_products(integers sum, integers a, integers b)
{
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
    return _mm512_dpwssd_epi32(sum, a, b);
#elif defined(__AVX512BW__)
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#elif defined(__AVXVNNI__)
    return _mm256_dpwssd_avx_epi32(sum, a, b);
#else
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
    __asm__ volatile("" : "+x"(sum)); /* or compilers multiply all before they add, and run out of registers */
    return sum;
#endif
}

typedef int32_t words_of_columns __attribute__((vector_size(4 * COLUMNS_AT_ONCE)));
typedef float floats_of_columns __attribute__((vector_size(4 * COLUMNS_AT_ONCE)));

/* Rounds a row of n >= 8 numbers, and fills it up to pairs; returns its scale: NaN, if one of them is not finite. */
static inline float rounded_row(const float *from, int64_t n, int16_t *to)
{
    typedef int16_t eight __attribute__((vector_size(16)));
    typedef int32_t eight_words __attribute__((vector_size(32)));
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i most = _mm256_setzero_si256(); /* as integers, magnitudes have the same order, and NaN is the largest */
    for (int64_t c = 0; c < n; c += 8) {
        const int64_t at = c + 8 <= n ? c : n - 8;
        most = _mm256_max_epi32(most, _mm256_and_si256(magnitude, _mm256_loadu_si256((const void *)(from + at))));
    }
    __m128i half = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    const int32_t bits = _mm_cvtsi128_si32(half);
    float largest;
    memcpy(&largest, &bits, 4);
    const __m256 factor = _mm256_set1_ps(largest > 0 ? MOST_LEFT / largest : 0);
    for (int64_t c = 0; c < n; c += 8) {
        const int64_t at = c + 8 <= n ? c : n - 8;
        const __m256i words = _mm256_cvtps_epi32(_mm256_mul_ps(factor, _mm256_loadu_ps(from + at)));
        const eight numbers = __builtin_convertvector((eight_words)words, eight);
        memcpy(to + at, &numbers, 16);
    }
    if (n % 2)
        to[n] = 0;
    return largest - largest == 0 ? largest / MOST_LEFT : 0.0f / 0.0f;
}

/* Like `block` of floats; a: pairs follow each other, rows are a_row numbers apart; b: pairs of columns. */
static inline __attribute__((always_inline)) void block_of_integers(
    const int16_t *a, int64_t a_row, const float *scales_of_rows, const int16_t *b, int64_t b_row,
    const float *scales_of_columns, float *c, int64_t c_row, int64_t pairs, int vectors, int add)
{
    integers sums[ROWS_AT_ONCE][2] = {};
    for (int64_t k = 0; k < pairs; k++, b += b_row) {
        integers left, right;
        memcpy(&left, b, sizeof left);
        if (vectors > 1)
            memcpy(&right, b + 2 * COLUMNS_AT_ONCE, sizeof right);
        for (int r = 0; r < ROWS_AT_ONCE; r++) {
            int32_t pair;
            memcpy(&pair, a + r * a_row + 2 * k, 4);
            const integers both = (integers)((words_of_columns){} + pair);
            sums[r][0] = plus_products(sums[r][0], both, left);
            if (vectors > 1)
                sums[r][1] = plus_products(sums[r][1], both, right);
        }
    }
    for (int r = 0; r < ROWS_AT_ONCE; r++)
        for (int v = 0; v < vectors; v++) {
            floats_of_columns scale, before = {}, sum;
            memcpy(&scale, scales_of_columns + v * COLUMNS_AT_ONCE, sizeof scale);
            if (add)
                memcpy(&before, c + r * c_row + v * COLUMNS_AT_ONCE, sizeof before);
            sum = before + __builtin_convertvector((words_of_columns)sums[r][v], floats_of_columns) *
                               (scale * scales_of_rows[r]);
            memcpy(c + r * c_row + v * COLUMNS_AT_ONCE, &sum, sizeof sum);
        }
}

/* c (rows up to a multiple of ROWS_AT_ONCE, columns in whole vectors) = a b.
 *
 * a: rows of `depth` numbers, even, one every a_row numbers; they may overlap. b: panels of up to two vectors of columns,
 * each (depth / 2, columns, 2). scales_of_columns: (parts of DEPTH, columns).
 */
static inline __attribute__((always_inline)) void product_of_integers(
    const int16_t *a, int64_t a_row, const float *scales_of_rows, int64_t rows, const int16_t *b,
    const float *scales_of_columns, float *c, int64_t c_row, int64_t columns, int64_t depth)
{
    const int64_t panel = 2 * COLUMNS_AT_ONCE;
    for (int64_t j = 0; j < columns; j += panel)
        for (int64_t from = 0; from < depth; from += DEPTH) {
            const int64_t width = columns - j < panel ? columns - j : panel;
            const int64_t pairs = (depth - from < DEPTH ? depth - from : DEPTH) / 2;
            const int16_t *numbers = b + j * depth + from * width;
            const float *scales = scales_of_columns + from / DEPTH * columns + j;
            for (int64_t r = 0; r < rows; r += ROWS_AT_ONCE)
                if (width == panel)
                    block_of_integers(a + r * a_row + from, a_row, scales_of_rows + r, numbers, 2 * width, scales,
                                      c + r * c_row + j, c_row, pairs, 2, from > 0);
                else
                    block_of_integers(a + r * a_row + from, a_row, scales_of_rows + r, numbers, 2 * width, scales,
                                      c + r * c_row + j, c_row, pairs, 1, from > 0);
        }
}

/* What a column of n numbers, `step` apart, is multiplied by before it is rounded; NaN, if one of them is not finite. */
static inline float factor_of_column(const float *from, int64_t n, int64_t step)
{
    float most = 0, sum = 0;
    for (int64_t k = 0; k < n; k++) {
        const float size = from[k * step] < 0 ? -from[k * step] : from[k * step];
        most = size > most ? size : most;
        sum += size;
    }
    if (sum - sum != 0)
        return 0.0f / 0.0f;
    if (most == 0)
        return 0;
    return MOST_RIGHT / most < MOST_OF_COLUMN / sum ? MOST_RIGHT / most : MOST_OF_COLUMN / sum;
}

static inline float scale_of_factor(float factor) { return factor == 0 ? 0 : 1 / factor; }

/* Rounds a right factor, from panels of up to two vectors of columns, each (rows, columns), to the form that
 * `product_of_integers` needs; columns from `columns` on, up to `wider`, become zero.
 */
static inline void rounded_columns(const float *from, int64_t rows, int64_t columns, int16_t *to, float *scales,
                                   int64_t wider)
{
    const int64_t panel = 2 * COLUMNS_AT_ONCE, depth = rows + rows % 2;
    memset(to, 0, sizeof *to * depth * wider);
    memset(scales, 0, sizeof *scales * ((rows + DEPTH - 1) / DEPTH) * wider);
    for (int64_t j = 0; j < columns; j++) {
        const int64_t first = j / panel * panel;
        const int64_t step = columns - first < panel ? columns - first : panel;
        const int64_t width = wider - first < panel ? wider - first : panel;
        const float *source = from + first * rows + j - first;
        int16_t *target = to + first * depth + 2 * (j - first);
        for (int64_t part = 0; part < rows; part += DEPTH) {
            const int64_t stop = rows - part < DEPTH ? rows : part + DEPTH;
            const float factor = factor_of_column(source + part * step, stop - part, step);
            scales[part / DEPTH * wider + j] = scale_of_factor(factor);
            for (int64_t k = part; k < stop; k++)
                target[k / 2 * 2 * width + k % 2] = (int16_t)__builtin_lrintf(source[k * step] * factor);
        }
    }
}
#else
#define HAS_INTEGERS 0
#define COLUMNS_AT_ONCE 1
#endif
