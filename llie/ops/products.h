/* Matrix products in float32 for kernels that keep their factors in the cache. Plain C with GNU vector extensions. */
#pragma once
#include <stdint.h>
#include <string.h>

#include "registers.h"

/* Pixels take vectors of LANES channels; products take WIDE columns. A block of a product fills ROWS x 2 vectors, about
 * as many as there are registers.
 */
#if defined(__AVX512F__)
#define LANES 8
#define WIDE 16
#define ROWS 8
#elif defined(__AVX__)
#define LANES 8
#define WIDE 8
#define ROWS 6
#else
#define LANES 4
#define WIDE 4
#if defined(__aarch64__)
#define ROWS 8
#else
#define ROWS 4
#endif
#endif
#define PANEL (2 * WIDE)
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float wide __attribute__((vector_size(4 * WIDE)));

INLINE vec get(const float *from)
{
    vec v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE wide get_wide(const float *from)
{
    wide v;
    memcpy(&v, from, sizeof v);
    return v;
}

INLINE void put(float *to, vec v) { memcpy(to, &v, sizeof v); }
INLINE void put_wide(float *to, wide v) { memcpy(to, &v, sizeof v); }

/* The start of the vector with channel c: the last one ends with the last channel. */
INLINE int64_t start(int64_t c, int64_t channels) { return c + LANES <= channels ? c : channels - LANES; }

/* Defines a function: c (count, 1 or 2 vectors) = a b, or added to c; element (r, k) of a is a[r * a_row + k * a_step]. */
#define BLOCK(name, count, vector, values, load, store)                                                           \
    INLINE void name(const float *a, int64_t a_row, int64_t a_step, const float *b, int64_t b_row, float *c,      \
                     int64_t c_row, int64_t depth, int vectors, int add)                                          \
    {                                                                                                             \
        vector sum[count][2];                                                                                     \
        for (int r = 0; r < count; r++)                                                                           \
            for (int v = 0; v < vectors; v++)                                                                     \
                sum[r][v] = add ? load(c + r * c_row + v * values) : (vector){};                                  \
        const float *halves_of_a[2] = {a, OPAQUE(a + count / 2 * a_row)};                                         \
        for (int64_t k = 0; k < depth; k++) {                                                                     \
            vector left = load(b + k * b_row), right = vectors > 1 ? load(b + k * b_row + values) : (vector){};   \
            for (int r = 0; r < count; r++) {                                                                     \
                const float factor = halves_of_a[r / (count / 2)][r % (count / 2) * a_row + k * a_step];          \
                sum[r][0] += factor * left;                                                                       \
                if (vectors > 1)                                                                                  \
                    sum[r][1] += factor * right;                                                                  \
            }                                                                                                     \
        }                                                                                                         \
        for (int r = 0; r < count; r++)                                                                           \
            for (int v = 0; v < vectors; v++)                                                                     \
                store(c + r * c_row + v * values, sum[r][v]);                                                     \
    }

/* Those with one vector take more rows, because a sum cannot wait for the one before. */
BLOCK(block, ROWS, wide, WIDE, get_wide, put_wide)
BLOCK(high_block, 2 * ROWS, wide, WIDE, get_wide, put_wide)
BLOCK(narrow_block, ROWS, vec, LANES, get, put)
BLOCK(high_narrow_block, 2 * ROWS, vec, LANES, get, put)

/* c (rows, columns) = a b, or added to c; rows up to a multiple of ROWS are written, and columns are a multiple of LANES.
 *
 * b: (depth, columns), or in panels of columns.
 */
INLINE void product(const float *a, int64_t a_row, int64_t a_step, int64_t rows, const float *b, int in_panels,
                    float *c, int64_t columns, int64_t depth, int add)
{
    for (int64_t j = 0; j < columns; j += PANEL) {
        const int64_t width = columns - j < PANEL ? columns - j : PANEL, wides = width / WIDE * WIDE;
        const float *panel = b + (in_panels ? j * depth : j);
        const int64_t b_row = in_panels ? width : columns;
        for (int64_t r = 0, done; r < rows; r += done) {
            const float *left = a + r * a_row;
            float *to = c + r * columns + j;
            done = wides < PANEL && r + ROWS < rows ? 2 * ROWS : ROWS;
            if (wides == PANEL)
                block(left, a_row, a_step, panel, b_row, to, columns, depth, 2, add);
            else if (wides && done > ROWS)
                high_block(left, a_row, a_step, panel, b_row, to, columns, depth, 1, add);
            else if (wides)
                block(left, a_row, a_step, panel, b_row, to, columns, depth, 1, add);
            if (wides < width && done > ROWS)
                high_narrow_block(left, a_row, a_step, panel + wides, b_row, to + wides, columns, depth, 1, add);
            else if (wides < width)
                narrow_block(left, a_row, a_step, panel + wides, b_row, to + wides, columns, depth, 1, add);
        }
    }
}
