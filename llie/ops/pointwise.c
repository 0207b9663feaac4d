/* A 1x1 convolution of several maps as if they were one; see pointwise.py.
 *
 * Maps are (pixels, channels) in float32. Products of some pixels stay in the cache until those of all maps are added.
 */
#include <omp.h>

#include "products.h"

#define PIXELS 48 /* at a time: a multiple of ROWS */

/* apart: values from pixel to pixel. */
typedef struct { const float *values; int64_t channels, apart; } map;

int64_t columns_of_panel(void) { return PANEL; }
int64_t columns_at_once(void) { return LANES; }
int64_t rows_at_once(void) { return ROWS; }
int64_t pixels_at_once(void) { return PIXELS; }

/* Fills result (pixels, outputs): bias, plus some maps of the same shape, plus others times their part of the kernel.
 *
 * kernel: for each of the others (channels, columns), in panels of columns. outputs: at least LANES. pixels: at least ROWS.
 * room: for each thread, PIXELS x columns.
 */
void combine(const map *maps, int64_t number, const float *kernel, int64_t columns, const float *bias, const map *added,
             int64_t number_added, float *result, int64_t outputs, int64_t pixels, float *room, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < pixels; first += PIXELS) {
        const int64_t stop = first + PIXELS < pixels ? first + PIXELS : pixels;
        /* Whole blocks of rows: the last ones begin before `first`. */
        const int64_t rows = (stop - first + ROWS - 1) / ROWS * ROWS, begin = stop - rows;
        const float *part = kernel;
        float *sums = room + omp_get_thread_num() * PIXELS * columns;
        for (int64_t m = 0; m < number; m++) {
            const map x = maps[m];
            product(x.values + begin * x.apart, x.apart, 1, rows, part, 1, sums, columns, x.channels, m > 0);
            part += x.channels * columns;
        }
        for (int64_t pixel = first; pixel < stop; pixel++)
            for (int64_t c = 0; c < outputs; c += LANES) {
                const int64_t at = start(c, outputs);
                vec v = get(sums + (pixel - begin) * columns + at) + get(bias + at);
                for (int64_t m = 0; m < number_added; m++)
                    v += get(added[m].values + pixel * added[m].apart + at);
                put(result + pixel * outputs + at, v);
            }
    }
}
