/* A 1x1 convolution of several maps as if they were one; see pointwise.py. Maps are (pixels, channels) in float32. */
#include <omp.h>

#include "pointwise.h"

#define PIXELS 48 /* at a time */

int64_t columns_of_panel(void) { return PANEL; }
int64_t columns_at_once(void) { return LANES; }
int64_t rows_at_once(void) { return ROWS; }

/* See `combine_pixels`. size: pixels of each map, at least ROWS. room: for each thread, rows_at_once x columns. */
void combine(pointwise by, const pixels *maps, int64_t number, const pixels *added, int64_t number_added, float *result,
             int64_t size, float *room, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < size; first += PIXELS) {
        const int64_t stop = first + PIXELS < size ? first + PIXELS : size;
        float *own = room + omp_get_thread_num() * ROWS * by.columns;
        combine_pixels(by, maps, number, added, number_added, result, first, stop, own);
    }
}
