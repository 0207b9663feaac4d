/* Products of matrices in 16-bit integers: each row of the left factor and each column of the right one is rounded by its
 * own scale. Sums are exact, in 32 bits; twice as fast as float32. Needs AVX2.
 */
#pragma once
#include <stdint.h>
#include <string.h>

#include "registers.h"

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
    /* Compilers multiply all before they add, and run out of registers. */
    integers products;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(products) : "x"(a), "xm"(b));
    return sum;
#endif
}

typedef int32_t words_of_columns __attribute__((vector_size(4 * COLUMNS_AT_ONCE)));
typedef float floats_of_columns __attribute__((vector_size(4 * COLUMNS_AT_ONCE)));

#define CHUNK 8 /* numbers of a row of a left factor that lie side by side */

/* How the numbers of a left factor follow each other: from row to row, from chunk to chunk, and from ROWS_AT_ONCE rows to
 * the next ones.
 */
typedef struct { int64_t row, chunk, rows; } order;

/* Row after row, one every `row` numbers; they may overlap. */
static inline order by_rows(int64_t row) { return (order){row, CHUNK, ROWS_AT_ONCE * row}; }

/* As products read it: the first chunks of ROWS_AT_ONCE rows, their second ones, ... */
static inline order by_chunks(int64_t depth)
{
    return (order){CHUNK, ROWS_AT_ONCE * CHUNK, (depth + CHUNK - 1) / CHUNK * CHUNK * ROWS_AT_ONCE};
}

/* Row r of a left factor. */
static inline int16_t *row_of(int16_t *a, order of_a, int64_t r)
{
    return a + r / ROWS_AT_ONCE * of_a.rows + r % ROWS_AT_ONCE * of_a.row;
}

typedef __m256i magnitudes; /* of floats, as integers, which have the same order; NaN is the largest */

static inline __attribute__((always_inline)) magnitudes larger(magnitudes most, __m256 v)
{
    return _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fffffff)));
}

/* NaN, if one is not finite. */
static inline float largest_of(magnitudes most)
{
    __m128i half = _mm_max_epi32(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    const float largest = _mm_cvtss_f32(_mm_castsi128_ps(half));
    return largest - largest == 0 ? largest : 0.0f / 0.0f;
}

/* Rounds CHUNK numbers. */
static inline __attribute__((always_inline)) void put_integers(int16_t *to, __m256 v)
{
    const __m256i words = _mm256_cvtps_epi32(v);
    _mm_storeu_si128((void *)to, _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

/* Rounds a row of n numbers, and fills it up to whole chunks, which begin `chunk` numbers apart; returns its scale: NaN, if
 * a number is not finite.
 */
static inline __attribute__((always_inline)) float rounded_row(const float *from, int64_t n, int16_t *to, int64_t chunk)
{
    const int64_t rest = n % CHUNK;
    float last[CHUNK] = {};
    memcpy(last, from + n - rest, sizeof *from * rest);
    magnitudes most = larger((magnitudes){}, _mm256_loadu_ps(last));
    for (int64_t c = 0; c < n - rest; c += CHUNK)
        most = larger(most, _mm256_loadu_ps(from + c));
    const float largest = largest_of(most);
    const __m256 factor = _mm256_set1_ps(largest > 0 ? MOST_LEFT / largest : 0);
    for (int64_t c = 0; c < n - rest; c += CHUNK, to += chunk)
        put_integers(to, _mm256_mul_ps(factor, _mm256_loadu_ps(from + c)));
    if (rest)
        put_integers(to, _mm256_mul_ps(factor, _mm256_loadu_ps(last)));
    return largest / MOST_LEFT;
}

/* Adds the products of a pair of each row with those of columns. a: the first rows, and the other half. */
static inline __attribute__((always_inline)) void add_pairs(integers (*sums)[2], const int16_t *const a[2], int64_t k,
                                                            int64_t a_row, const int16_t *b, int vectors)
{
    integers left, right;
    memcpy(&left, b, sizeof left);
    if (vectors > 1)
        memcpy(&right, b + 2 * COLUMNS_AT_ONCE, sizeof right);
    for (int r = 0; r < ROWS_AT_ONCE; r++) {
        int32_t pair;
        memcpy(&pair, a[r / (ROWS_AT_ONCE / 2)] + r % (ROWS_AT_ONCE / 2) * a_row + 2 * k, 4);
        const integers both = (integers)((words_of_columns){} + pair);
        sums[r][0] = plus_products(sums[r][0], both, left);
        if (vectors > 1)
            sums[r][1] = plus_products(sums[r][1], both, right);
    }
}

/* Like `block` of floats; b: pairs of columns. */
static inline __attribute__((always_inline)) void block_of_integers(
    const int16_t *a, order of_a, const float *scales_of_rows, const int16_t *b, int64_t b_row,
    const float *scales_of_columns, float *c, int64_t c_row, int64_t pairs, int vectors, int add)
{
    integers sums[ROWS_AT_ONCE][2] = {};
    const int16_t *halves_of_a[2] = {a, OPAQUE(a + ROWS_AT_ONCE / 2 * of_a.row)};
    for (; pairs >= CHUNK / 2; pairs -= CHUNK / 2, halves_of_a[0] += of_a.chunk, halves_of_a[1] += of_a.chunk)
#pragma GCC unroll 4
        for (int k = 0; k < CHUNK / 2; k++, b += b_row)
            add_pairs(sums, halves_of_a, k, of_a.row, b, vectors);
    for (int64_t k = 0; k < pairs; k++, b += b_row)
        add_pairs(sums, halves_of_a, k, of_a.row, b, vectors);
    for (int r = 0; r < ROWS_AT_ONCE; r++)
        for (int v = 0; v < vectors; v++) {
            floats_of_columns scale, before = {}, sum;
            memcpy(&scale, scales_of_columns + v * COLUMNS_AT_ONCE, sizeof scale);
            if (add)
                memcpy(&before, c + r * c_row + v * COLUMNS_AT_ONCE, sizeof before);
            if (scales_of_rows)
                scale *= scales_of_rows[r];
            sum = before + scale * __builtin_convertvector((words_of_columns)sums[r][v], floats_of_columns);
            memcpy(c + r * c_row + v * COLUMNS_AT_ONCE, &sum, sizeof sum);
        }
}

/* Load what is read soon into the cache. */
static inline __attribute__((always_inline)) void fetch(const char *from, int64_t bytes)
{
    for (int64_t at = 0; at < bytes; at += 64)
        __builtin_prefetch(from + at, 0, 2);
}

/* c (rows up to a multiple of ROWS_AT_ONCE, `vectors` vectors of columns) = a b.
 *
 * a: rows of `depth` numbers, even. b: (depth / 2, columns, 2). scales_of_rows: may be null. scales_of_columns: those of the
 * next DEPTH numbers of a column are `scales_apart` on.
 */
static inline __attribute__((always_inline)) void panel_of_integers(
    const int16_t *a, order of_a, const float *scales_of_rows, int64_t rows, const int16_t *b,
    const float *scales_of_columns, int64_t scales_apart, float *c, int64_t c_row, int64_t depth, int vectors)
{
    const int64_t width = vectors * COLUMNS_AT_ONCE;
    for (int64_t from = 0; from < depth; from += DEPTH, scales_of_columns += scales_apart) {
        const int64_t pairs = (depth - from < DEPTH ? depth - from : DEPTH) / 2;
        const int16_t *left = a + from / CHUNK * of_a.chunk;
        const int64_t bytes = 4 * pairs * width, blocks = (rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
        const char *next = (const char *)(b + from * width) + bytes;
        for (int64_t r = 0; r < rows; r += ROWS_AT_ONCE, left += of_a.rows, next += bytes / blocks + 1) {
            fetch(next, bytes / blocks + 1);
            block_of_integers(left, of_a, scales_of_rows ? scales_of_rows + r : 0, b + from * width, 2 * width,
                              scales_of_columns, c + r * c_row, c_row, pairs, vectors, from > 0);
        }
    }
}

/* The same for columns in whole vectors; b: panels of up to two of them; scales_of_columns: (parts of DEPTH, columns). */
static inline __attribute__((always_inline)) void product_of_integers(
    const int16_t *a, order of_a, const float *scales_of_rows, int64_t rows, const int16_t *b,
    const float *scales_of_columns, float *c, int64_t c_row, int64_t columns, int64_t depth)
{
    int64_t j = 0;
    for (; j + 2 * COLUMNS_AT_ONCE <= columns; j += 2 * COLUMNS_AT_ONCE)
        panel_of_integers(a, of_a, scales_of_rows, rows, b + j * depth, scales_of_columns + j, columns, c + j, c_row,
                          depth, 2);
    if (j < columns)
        panel_of_integers(a, of_a, scales_of_rows, rows, b + j * depth, scales_of_columns + j, columns, c + j, c_row,
                          depth, 1);
}

/* What a column of n numbers, `step` apart, is multiplied by before it is rounded; NaN, if one of them is not finite. */
static inline float factor_of_column(const float *from, int64_t n, int64_t step, float most_of_sum)
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
    return MOST_RIGHT / most < most_of_sum / sum ? MOST_RIGHT / most : most_of_sum / sum;
}

static inline float scale_of_factor(float factor) { return factor == 0 ? 0 : 1 / factor; }

/* Rounds a right factor, from panels of up to two vectors of columns, each (rows, columns), to the form that
 * `product_of_integers` needs; columns from `columns` on, up to `wider`, become zero.
 */
static inline void rounded_columns(const float *from, int64_t rows, int64_t columns, int16_t *to, float *scales,
                                   int64_t wider, float most_of_sum)
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
            const float factor = factor_of_column(source + part * step, stop - part, step, most_of_sum);
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
