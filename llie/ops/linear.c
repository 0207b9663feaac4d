/* Linear layers in products of 16-bit integers on a CPU; see linear.py. */
#include <omp.h>
#include <stdlib.h>

#include "integers.h"

#define TOKENS 132 /* at a time, at most, for each thread: as integers, they stay in the cache */

#define WIDTH (2 * COLUMNS_AT_ONCE) /* columns of a panel */

/* Columns that a right factor is filled up to a multiple of; 0: this processor has no products of integers. */
int64_t columns_at_once(void)
{
#if HAS_INTEGERS
    return WIDTH;
#else
    return 0;
#endif
}

/* weight: panels of columns, each (inputs, columns_at_once); to: as many numbers; scales: (parts of DEPTH, columns). */
void weight_in_integers(const float *weight, int64_t inputs, int64_t columns, int16_t *to, float *scales)
{
#if HAS_INTEGERS
    rounded_columns(weight, inputs, columns, to, scales, columns, MOST_OF_COLUMN);
#endif
}

/* Fills result (tokens, outputs): x (tokens, inputs >= 8) times the weight, plus bias, which may be null; then ReLU, if wanted.
 *
 * inputs: even.
 */
void linear(const float *x, int64_t tokens, int64_t inputs, const int16_t *weight, const float *scales, int64_t columns,
            const float *bias, int relu, float *result, int64_t outputs, int threads)
{
#if HAS_INTEGERS
    /* As many for each thread. */
    const int64_t times = (tokens + threads * TOKENS - 1) / (threads * TOKENS);
    int64_t most = (tokens + threads * times - 1) / (threads * times);
    most = (most + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE * ROWS_AT_ONCE;
#pragma omp parallel num_threads(threads)
    {
        const order of_numbers = by_chunks(inputs);
        int16_t *numbers = calloc(most / ROWS_AT_ONCE * of_numbers.rows, sizeof(int16_t));
        float *of_rows = calloc(most, sizeof(float)), *panel = malloc(most * WIDTH * sizeof(float));
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < tokens; first += most) {
            const int64_t count = tokens - first < most ? tokens - first : most;
            for (int64_t t = 0; t < count; t++)
                of_rows[t] = rounded_row(x + (first + t) * inputs, inputs, row_of(numbers, of_numbers, t), of_numbers.chunk);
            for (int64_t j = 0; j < columns; j += WIDTH) {
                const int64_t width = outputs - j < WIDTH ? outputs - j : WIDTH;
                panel_of_integers(numbers, of_numbers, of_rows, count, weight + j * inputs, scales + j, columns, panel,
                                  WIDTH, inputs, 2);
                for (int64_t t = 0; t < count; t++)
                    for (int64_t c = 0; c < width; c++) {
                        const float sum = panel[t * WIDTH + c] + (bias ? bias[j + c] : 0);
                        result[(first + t) * outputs + j + c] = relu && sum < 0 ? 0 : sum;
                    }
            }
        }
        free(numbers), free(of_rows), free(panel);
    }
#endif
}
