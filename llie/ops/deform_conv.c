/* Modulated deformable convolutions on a CPU, without gradients; see deform_conv.py.
 *
 * What the taps of a few pixels read is put together, so that it stays in the cache, and multiplied by the kernel. Maps
 * are (images, height, width, channels) in float32.
 */
#include <math.h>
#include <omp.h>

#include "products.h"

#define PIXELS 24 /* at a time: a multiple of ROWS */

_Static_assert(PIXELS % ROWS == 0, "or else products overrun");

int64_t lanes(void) { return LANES; }
int64_t columns_of_panel(void) { return PANEL; }

/* channels: a multiple of LANES. */
typedef struct { const float *values; int64_t images, height, width, channels; } map;

/* Values for each pixel of the result; `image`, `channel`, ...: from one to the next. */
typedef struct { const float *values; int64_t image, channel, row, pixel; } field;

/* A kernel with k x k taps: (k k channels, columns), in panels of columns, a multiple of LANES; bias: of the outputs, or null. */
typedef struct { const float *values, *bias; int64_t k, stride, padding, dilation, columns; } kernel;

/* The value at a place, bilinearly, times `factor`; beyond the edges are zeros. */
INLINE void sample(map x, int64_t image, float at_y, float at_x, float factor, float *to)
{
    if (!(at_y > -1 && at_x > -1 && at_y < x.height && at_x < x.width)) {
        const float nothing = 0 * (at_y + at_x) * factor; /* or NaN, which shows that something is wrong */
        for (int64_t c = 0; c < x.channels; c += LANES)
            put(to + c, (vec){} + nothing);
        return;
    }
    const float floor_y = floorf(at_y), floor_x = floorf(at_x), below = at_y - floor_y, right = at_x - floor_x;
    const int64_t top = floor_y, left = floor_x;
    const float *near[4];
    float weights[4];
    for (int i = 0; i < 4; i++) {
        const int64_t y = top + i / 2, column = left + i % 2;
        const int inside = y >= 0 && column >= 0 && y < x.height && column < x.width;
        near[i] = x.values + (inside ? ((image * x.height + y) * x.width + column) * x.channels : 0);
        weights[i] = inside ? factor * (i / 2 ? below : 1 - below) * (i % 2 ? right : 1 - right) : 0;
    }
    for (int64_t c = 0; c < x.channels; c += LANES)
        put(to + c, weights[0] * get(near[0] + c) + weights[1] * get(near[1] + c) + weights[2] * get(near[2] + c) +
                        weights[3] * get(near[3] + c));
}

/* Values of room that each thread needs. */
int64_t room_of_each(map x, kernel by) { return PIXELS * (by.k * by.k * x.channels + by.columns); }

/* Fills result (images, height, width, outputs). offset: 2 k k channels; mask: k k channels, or no values. */
void deform(map x, field offset, field mask, kernel by, float *result, int64_t height, int64_t width, int64_t outputs,
            float *room, int threads)
{
    const int64_t taps = by.k * by.k, depth = taps * x.channels, all = x.images * height * width;
#pragma omp parallel num_threads(threads)
    {
        float *samples = room + omp_get_thread_num() * room_of_each(x, by), *products = samples + PIXELS * depth;
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < all; first += PIXELS) {
            const int64_t count = all - first < PIXELS ? all - first : PIXELS;
            for (int64_t p = 0; p < count; p++) {
                const int64_t image = (first + p) / (height * width), row = (first + p) / width % height;
                const int64_t pixel = (first + p) % width;
                const float *shift = offset.values + image * offset.image + row * offset.row + pixel * offset.pixel;
                const float *factor = mask.values + image * mask.image + row * mask.row + pixel * mask.pixel;
                for (int64_t t = 0; t < taps; t++) {
                    const int64_t top = row * by.stride - by.padding + t / by.k * by.dilation;
                    const int64_t left = pixel * by.stride - by.padding + t % by.k * by.dilation;
                    const float y = top + shift[2 * t * offset.channel], column = left + shift[(2 * t + 1) * offset.channel];
                    sample(x, image, y, column, mask.values ? factor[t * mask.channel] : 1,
                           samples + p * depth + t * x.channels);
                }
            }
            product(samples, depth, 1, count, by.values, 1, products, by.columns, depth, 0);
            for (int64_t p = 0; p < count; p++)
                for (int64_t c = 0; c < outputs; c++)
                    result[(first + p) * outputs + c] = products[p * by.columns + c] + (by.bias ? by.bias[c] : 0);
        }
    }
}
