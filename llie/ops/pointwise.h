/* 1x1 convolutions of several maps as if they were one, for some pixels; see pointwise.py. */
#pragma once
#include "products.h"

#define PIXELS 48 /* at a time: a multiple of ROWS */

/* Pixels of a map in float32. apart: values from pixel to pixel. */
typedef struct { const float *values; int64_t channels, apart; } pixels;

/* A kernel, for each map (channels, columns), in panels of columns; and a bias. outputs: at least LANES. */
typedef struct { const float *kernel, *bias; int64_t columns, outputs; } pointwise;

/* Fills pixels first to stop of the result (.., outputs), at most PIXELS: bias, plus some maps of its shape, plus others
 * times their part of the kernel. There are at least ROWS pixels before stop. room: PIXELS x columns.
 *
 * Products of these pixels stay in the cache until those of all maps are added.
 */
static void combine_pixels(pointwise by, const pixels *maps, int64_t number, const pixels *added, int64_t number_added,
                           float *result, int64_t first, int64_t stop, float *room)
{
    /* Whole blocks of rows: the last ones begin before `first`. */
    const int64_t rows = (stop - first + ROWS - 1) / ROWS * ROWS, begin = stop - rows;
    const float *part = by.kernel;
    for (int64_t m = 0; m < number; m++) {
        const pixels x = maps[m];
        product(x.values + begin * x.apart, x.apart, 1, rows, part, 1, room, by.columns, x.channels, m > 0);
        part += x.channels * by.columns;
    }
    for (int64_t pixel = first; pixel < stop; pixel++)
        for (int64_t c = 0; c < by.outputs; c += LANES) {
            const int64_t at = start(c, by.outputs);
            vec v = get(room + (pixel - begin) * by.columns + at) + get(by.bias + at);
            for (int64_t m = 0; m < number_added; m++)
                v += get(added[m].values + pixel * added[m].apart + at);
            put(result + pixel * by.outputs + at, v);
        }
}
