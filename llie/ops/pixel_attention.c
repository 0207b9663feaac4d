/* Pixel attention on a residual path, on a CPU, without gradients; see pixel_attention.py.
 *
 * Maps are (images, pixels, channels) in float32, channels a multiple of LANES.
 */
#include <math.h>
#include <omp.h>

#include "products.h"

#define PIXELS 24 /* at a time: a multiple of ROWS */

_Static_assert(PIXELS % ROWS == 0, "or else products overrun");

int64_t lanes(void) { return LANES; }

/* hidden: (channels, columns), columns a multiple of LANES, and its bias; last: (columns) and its bias. */
typedef uint32_t words __attribute__((vector_size(4 * LANES)));

typedef struct { const float *hidden, *bias, *last; float last_bias; int64_t columns; } attention;

/* Values of room that each thread needs. */
int64_t room_of_each(int64_t channels, int64_t columns) { return PIXELS * (channels + columns); }

/* result = x + z a(z), z = y times a factor (images, channels) of each channel, and a(z) = sigmoid(last relu(hidden z)). */
void attend(const float *x, const float *y, const float *factors, int64_t images, int64_t pixels, int64_t channels,
            attention by, float *result, float *room, int threads)
{
    const int64_t parts = (pixels + PIXELS - 1) / PIXELS;
#pragma omp parallel for num_threads(threads) schedule(static) collapse(2)
    for (int64_t image = 0; image < images; image++)
        for (int64_t part = 0; part < parts; part++) {
            const int64_t first = image * pixels + part * PIXELS;
            const int64_t count = pixels - part * PIXELS < PIXELS ? pixels - part * PIXELS : PIXELS;
            float *z = room + omp_get_thread_num() * room_of_each(channels, by.columns), *hidden = z + PIXELS * channels;
            for (int64_t p = 0; p < count; p++)
                for (int64_t c = 0; c < channels; c += LANES)
                    put(z + p * channels + c, get(y + (first + p) * channels + c) * get(factors + image * channels + c));
            product(z, channels, 1, count, by.hidden, 0, hidden, by.columns, channels, 0);
            for (int64_t p = 0; p < count; p++) {
                vec sums = {};
                for (int64_t c = 0; c < by.columns; c += LANES) {
                    const vec v = get(hidden + p * by.columns + c) + get(by.bias + c);
                    sums += get(by.last + c) * (vec)((words)v & ~(words)(v < 0)); /* keeps NaN */
                }
                float sum = by.last_bias;
                for (int lane = 0; lane < LANES; lane++)
                    sum += sums[lane];
                const vec share = (vec){} + 1 / (1 + expf(-sum));
                for (int64_t c = 0; c < channels; c += LANES) {
                    const int64_t at = (first + p) * channels + c;
                    put(result + at, get(x + at) + get(z + p * channels + c) * share);
                }
            }
        }
}
