/* Winograd's convolutions on a CPU, and their gradients; see winograd.h for the layout of maps.
 */
#include <omp.h>

#include "winograd.h"

int64_t lanes(void) { return LANES; }
int64_t columns_at_once(void) { return LANES; }
int64_t columns_of_integers(void) { return COLUMNS_AT_ONCE; }
int64_t rows_at_once(void) { return ROWS; }

/* Fills 36 matrices (rows, columns), with GAP between them, with kernels at the points; that of row r and column c
 * begins at weight[r * of_row + c * of_column], and its taps are `of_tap` apart. Columns from `count` on are zero.
 * Panels of up to two vectors of columns follow each other, each (rows, vectors).
 */
void kernels_at_points(const float *weight, int64_t of_row, int64_t of_column, int64_t of_tap, int64_t rows,
                       int64_t count, float *to, int64_t columns, int threads)
{
#pragma omp parallel for num_threads(threads) collapse(2)
    for (int64_t c = 0; c < columns; c += LANES)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t panel = c / PANEL * PANEL, width = columns - panel < PANEL ? columns - panel : PANEL;
            float taps[9][LANES] = {}, *place = to + panel * rows + r * width + c - panel;
            vec lines[6][3];
            for (int64_t lane = 0; lane < LANES && c + lane < count; lane++)
                for (int tap = 0; tap < 9; tap++)
                    taps[tap][lane] = weight[r * of_row + (c + lane) * of_column + tap * of_tap];
            for (int j = 0; j < 3; j++) {
                vec k[3], at[6];
                for (int i = 0; i < 3; i++)
                    k[i] = get(taps[i * 3 + j]);
                kernel_at_points(at, k);
                for (int i = 0; i < 6; i++)
                    lines[i][j] = at[i];
            }
            for (int i = 0; i < 6; i++) {
                vec at[6];
                kernel_at_points(at, lines[i]);
                for (int j = 0; j < 6; j++)
                    put(place + (i * 6 + j) * (rows * columns + GAP), at[j]);
            }
        }
}

/* Whether this processor has products of 16-bit integers. */
int has_integers(void) { return HAS_INTEGERS; }

/* Rounds 36 kernels (rows, columns) at the points to (rows up to an even number, wider), wider being a multiple of
 * COLUMNS_AT_ONCE; scales: (36, parts of DEPTH, wider), for values over what they are at most.
 */
void kernels_in_integers(const float *kernel, int64_t rows, int64_t columns, int16_t *to, float *scales, int64_t wider,
                         int threads)
{
#if HAS_INTEGERS
    const int64_t each = (rows + DEPTH - 1) / DEPTH * wider;
#pragma omp parallel for num_threads(threads)
    for (int p = 0; p < 36; p++) {
        rounded_columns(kernel + p * (rows * columns + GAP), rows, columns, to + p * (rows + rows % 2) * wider,
                        scales + p * each, wider, most_of_column(rows));
        for (int64_t c = 0; c < each; c++)
            scales[p * each + c] *= at_most[p % 6];
    }
#endif
}

/* Fills outputs, channels after channels: images with a kernel at the points.
 *
 * most: tiles at once, a multiple of ROWS. room: for each thread, `room_of_tiles`.
 */
void convolve(images from, factor by, const output *outputs, int64_t number, shape of_result, int64_t tiles, int64_t most,
              float *room, int64_t room_of_each, int threads)
{
    /* The tiles are those of the result, which may have fewer rows than the images. */
    from.of_x.down = from.of_more.down = of_result.down;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t first = 0; first < tiles; first += most) {
        const int64_t count = tiles - first < most ? tiles - first : most;
        float *own = room + omp_get_thread_num() * room_of_each;
        convolve_tiles(from, by, outputs, number, of_result, first, count, most, own);
    }
}

int64_t room_of_each(int64_t most, int64_t channels, int64_t columns) { return room_of_tiles(most, channels, columns); }

/* Adds what some tiles give to the gradient of a kernel at the points, total (36, rows, columns). */
INLINE void sum_over(const float *values, int64_t n, int64_t apart, const float *gradients, int64_t apart_of_gradient,
                     int64_t count, float *total, int64_t rows, int64_t columns, int p)
{
    product(values + p * apart, 1, n, rows, gradients + p * apart_of_gradient, 0, total + p * rows * columns, columns,
            count, 1);
}

/* Fills totals (threads, 36, rows, columns), which are zero, with the gradient of a kernel at the points, in as many
 * parts: sums over tiles. room: for each thread, 36 (most (channels of x + columns) + 2 GAP + the larger number of channels)
 * + LINES.
 */
void correlate(const void *x, shape of_x, const void *gradient, shape of_gradient, int64_t tiles, int64_t most,
               float *totals, int64_t rows, int64_t columns, float *room, int64_t room_of_each, int threads)
{
    const int64_t n = of_x.channels, apart = most * n + GAP, apart_of_gradient = most * columns + GAP;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < tiles; first += most) {
        const int64_t count = tiles - first < most ? tiles - first : most, thread = omp_get_thread_num();
        float *values = room + thread * room_of_each, *gradients = values + 36 * apart;
        float *scratch = gradients + 36 * apart_of_gradient, *total = totals + thread * 36 * rows * columns;
        images_at_points(x, of_x, 0, first, count, values, n, apart, scratch);
        gradients_at_points(gradient, of_gradient, first, count, gradients, columns, apart_of_gradient, scratch);
        for (int p = 0; p < 36; p++)
            sum_over(values, n, apart, gradients, apart_of_gradient, count, total, rows, columns, p);
    }
}

/* The same for kernels so large that there is one total (36, rows, columns): threads work on the same tiles, and then on
 * different matrices. room: 36 (most (channels of x + columns) + 2 GAP), and for each thread 36 x the larger number of
 * channels, and LINES.
 */
void correlate_together(const void *x, shape of_x, const void *gradient, shape of_gradient, int64_t tiles, int64_t most,
                        float *total, int64_t rows, int64_t columns, float *room, int threads)
{
    const int64_t n = of_x.channels, step = 8;
    const int64_t apart = most * n + GAP, apart_of_gradient = most * columns + GAP;
    const int64_t widest = of_gradient.channels > n ? of_gradient.channels : n;
    float *values = room, *gradients = values + 36 * apart, *scratch = gradients + 36 * apart_of_gradient;
#pragma omp parallel num_threads(threads)
    for (int64_t first = 0; first < tiles; first += most) {
        const int64_t count = tiles - first < most ? tiles - first : most;
        float *own = scratch + omp_get_thread_num() * (36 * widest + LINES);
#pragma omp for
        for (int64_t t = 0; t < count; t += step) {
            const int64_t some = count - t < step ? count - t : step;
            images_at_points(x, of_x, 0, first + t, some, values + t * n, n, apart, own);
            gradients_at_points(gradient, of_gradient, first + t, some, gradients + t * columns, columns,
                                apart_of_gradient, own);
        }
#pragma omp for
        for (int p = 0; p < 36; p++)
            sum_over(values, n, apart, gradients, apart_of_gradient, count, total, rows, columns, p);
    }
}
