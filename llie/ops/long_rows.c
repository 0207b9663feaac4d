/* Convolutions with kernels of one long row on a CPU; see long_rows.py.
 *
 * The values that a result depends on follow each other in memory: results are products of overlapping rows with the kernel.
 */
#include <omp.h>

#include "integers.h"
#include "products.h"

#define COLUMNS_TO_ADD 64

#if HAS_INTEGERS
_Static_assert(ROWS % ROWS_AT_ONCE == 0, "rows beyond the last are within the room");
#endif

int64_t columns_of_panel(void) { return PANEL; }
int64_t columns_at_once(void) { return HAS_INTEGERS ? COLUMNS_AT_ONCE : LANES; }
int64_t rows_at_once(void) { return ROWS; }
int has_integers(void) { return HAS_INTEGERS; }

/* Rounds the kernel, in panels of columns, each (depth, columns); scales: (parts of DEPTH, columns). */
void kernel_in_integers(const float *kernel, int64_t depth, int64_t columns, int16_t *to, float *scales)
{
#if HAS_INTEGERS
    rounded_columns(kernel, depth, columns, to, scales, columns, MOST_OF_COLUMN);
#endif
}

/* Fills result (rows, width, outputs): each row of x (rows, width, channels), with zeros on both sides, with a kernel of
 * (taps * channels, columns), in panels of columns; in integers, if there are scales.
 *
 * taps: odd; channels: even. room: for each thread, (wide + taps) channels + wide (columns + 1), where wide is the width
 * up to a multiple of ROWS.
 */
void convolve(const float *x, int64_t rows, int64_t width, int64_t channels, int64_t taps, const void *kernel,
              const float *scales, int64_t columns, float *result, int64_t outputs, float *room, int64_t room_of_each,
              int threads)
{
    const int64_t wide = (width + ROWS - 1) / ROWS * ROWS, margin = taps / 2 * channels, depth = taps * channels;
    const int64_t numbers = width * channels, all = (wide + taps) * channels;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        float *line = room + omp_get_thread_num() * room_of_each, *sums = line + all, *of_pixels = sums + wide * columns;
        const float *from = x + r * numbers;
        if (scales) {
#if HAS_INTEGERS
            memset(line, 0, sizeof(int16_t) * all);
            const float scale = rounded_row(from, numbers, (int16_t *)line + margin, CHUNK);
            for (int64_t i = 0; i < wide; i++)
                of_pixels[i] = scale;
            product_of_integers((const int16_t *)line, by_rows(channels), of_pixels, width, kernel, scales, sums, columns,
                                columns, depth);
#endif
        } else {
            memset(line, 0, sizeof(float) * all);
            memcpy(line + margin, from, sizeof(float) * numbers);
            product(line, channels, 1, width, kernel, 1, sums, columns, depth, 0);
        }
        for (int64_t i = 0; i < width; i++)
            memcpy(result + (r * width + i) * outputs, sums + i * columns, sizeof(float) * outputs);
    }
}

/* Fills result (outputs, rows, width) with the bias and the sums of terms (height, width, taps, outputs): row r has tap t
 * of row first + r + t of these, if there is one.
 */
void add_rows(const float *terms, int64_t height, int64_t width, int64_t taps, int64_t outputs, int64_t first,
              const float *bias, float *result, int64_t rows, int threads)
{
    /* The terms of few columns stay in the cache, where each of them is read by several rows. */
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t left = 0; left < width; left += COLUMNS_TO_ADD) {
        const int64_t columns = width - left < COLUMNS_TO_ADD ? width - left : COLUMNS_TO_ADD;
        for (int64_t r = 0; r < rows; r++)
            for (int64_t o = 0; o < outputs; o++) {
                float sums[COLUMNS_TO_ADD];
                for (int64_t i = 0; i < columns; i++)
                    sums[i] = bias[o];
                for (int64_t t = 0; t < taps; t++) {
                    const int64_t row = first + r + t;
                    const float *from = terms + ((row * width + left) * taps + t) * outputs + o;
                    if (row >= 0 && row < height)
                        for (int64_t i = 0; i < columns; i++)
                            sums[i] += from[i * taps * outputs];
                }
                memcpy(result + (o * rows + r) * width + left, sums, sizeof(float) * columns);
            }
    }
}
