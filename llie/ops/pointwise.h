/* 1x1 convolutions of several maps as if they were one, for some pixels; see pointwise.py. */
#pragma once
#include "products.h"

/* Pixels of a map in float32. apart: values from pixel to pixel. */
typedef struct { const float *values; int64_t channels, apart; } pixels;

/* A kernel, for each map (channels, columns), in panels of columns; and a bias. outputs: at least LANES. */
typedef struct { const float *kernel, *bias; int64_t columns, outputs; } pointwise;

/* Defines a function: c (ROWS, `vectors` vectors) = pixels of all maps, from `first` on, times some columns of the kernel. `panel`
 * is where those of the first map begin, for each of its channels; they are part of b_row columns.
 *
 * Sums stay in registers until all maps are added. A function of its own, or there are not enough of these.
 */
#define BLOCK_OF_MAPS(name, vector, values_of_vector, load, store, vectors)                                       \
    APART void name(pointwise by, const pixels *maps, int64_t number, int64_t first, int64_t panel, int64_t b_row,\
                    float *c)                                                                                     \
    {                                                                                                             \
        vector sum[ROWS][2] = {};                                                                                 \
        const float *part = by.kernel;                                                                            \
        for (int64_t m = 0; m < number; m++) {                                                                    \
            const int64_t n = maps[m].channels, apart = maps[m].apart;                                            \
            const float *a = maps[m].values + first * apart, *b = part + panel / PANEL * PANEL * n + panel % PANEL;\
            const float *halves_of_a[2] = {a, OPAQUE(a + ROWS / 2 * apart)};                                      \
            for (int64_t k = 0; k < n; k++, b += b_row) {                                                         \
                const vector left = load(b), right = vectors > 1 ? load(b + values_of_vector) : left;             \
                for (int r = 0; r < ROWS; r++) {                                                                  \
                    const float factor = halves_of_a[r / (ROWS / 2)][r % (ROWS / 2) * apart + k];                 \
                    sum[r][0] += factor * left;                                                                   \
                    if (vectors > 1)                                                                              \
                        sum[r][1] += factor * right;                                                              \
                }                                                                                                 \
            }                                                                                                     \
            part += n * by.columns;                                                                               \
        }                                                                                                         \
        for (int r = 0; r < ROWS; r++)                                                                            \
            for (int v = 0; v < vectors; v++)                                                                     \
                store(c + r * by.columns + panel + v * values_of_vector, sum[r][v]);                              \
    }

BLOCK_OF_MAPS(pair_of_maps, wide, WIDE, get_wide, put_wide, 2)
BLOCK_OF_MAPS(one_of_maps, wide, WIDE, get_wide, put_wide, 1)
BLOCK_OF_MAPS(narrow_one_of_maps, vec, LANES, get, put, 1)

/* Fills pixels first to stop of the result (.., outputs): bias, plus some maps of its shape, plus others times their part of
 * the kernel. There are at least ROWS pixels before stop. room: ROWS x columns.
 */
INLINE void combine_pixels(pointwise by, const pixels *maps, int64_t number, const pixels *added, int64_t number_added,
                           float *result, int64_t first, int64_t stop, float *room)
{
    for (int64_t next; first < stop; first = next) {
        next = first + ROWS < stop ? first + ROWS : stop;
        for (int64_t j = 0; j < by.columns; j += PANEL) {
            const int64_t width = by.columns - j < PANEL ? by.columns - j : PANEL;
            if (width == PANEL)
                pair_of_maps(by, maps, number, next - ROWS, j, width, room);
            else if (width >= WIDE)
                one_of_maps(by, maps, number, next - ROWS, j, width, room);
            if (width % WIDE)
                narrow_one_of_maps(by, maps, number, next - ROWS, j + width / WIDE * WIDE, width, room);
        }
        for (int64_t c = 0; c < by.outputs; c += LANES) {
            const int64_t at = start(c, by.outputs);
            const vec bias = get(by.bias + at);
            for (int64_t pixel = first; pixel < next; pixel++) {
                vec v = get(room + (pixel - next + ROWS) * by.columns + at) + bias;
                for (int64_t m = 0; m < number_added; m++)
                    v += get(added[m].values + pixel * added[m].apart + at);
                put(result + pixel * by.outputs + at, v);
            }
        }
    }
}
