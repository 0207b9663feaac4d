/* Winograd's convolutions of tiles on a CPU; see winograd.py for the method.
 *
 * Maps are (batch, height, width, channels) without gaps, in float32 or bfloat16; beyond their edges are zeros, or their
 * outermost values. The
 * values of tiles at the 6x6 points are in 36 matrices (tiles, channels), for a few tiles at a time, so that they and
 * their products stay in the cache. Every map that is read has at least LANES channels; the last vector of a pixel overlaps the one
 * before. Plain C with GNU vector extensions.
 */
#pragma once
#include "winograd_outputs.h"

/* What a convolution multiplies by: 36 kernels (channels, columns) at the points, from `kernels_at_points`, with GAP between
 * them; with scales, from `kernels_in_integers`. bias: LANES values more than channels of the result, or null.
 */
typedef struct { const void *kernel; const float *scales, *bias; int64_t columns; } factor;

/* Values of room that `convolve_tiles` needs, for up to `most` tiles. */
INLINE int64_t room_of_tiles(int64_t most, int64_t channels, int64_t columns)
{
    return 36 * (most * (channels + columns) + 2 * GAP + channels) + LINES + 6 * most;
}

/* The products at the points, (36, most, columns), of some tiles with a kernel.
 *
 * room: 36 (most channels + GAP + channels) + LINES.
 */
APART void products_of(images from, int64_t first, int64_t count, int64_t most, const float *kernel, int64_t columns,
                        float *products, float *room)
{
    const int64_t n = from.of_x.channels + from.of_more.channels, apart = most * n + GAP;
    float *columns_there = room + 36 * apart;
    images_at_points(from.x, from.of_x, from.above, first, count, room, n, apart, columns_there);
    if (from.of_more.channels)
        images_at_points(from.more, from.of_more, from.above, first, count, room + from.of_x.channels, n, apart,
                         columns_there);
    for (int p = 0; p < 36; p++)
        product(room + p * apart, n, 1, count, kernel + p * (n * columns + GAP), 1,
                products + p * (most * columns + GAP), columns, n, 0);
}

#if HAS_INTEGERS
/* The same in integers: products have to be multiplied by scales_of_rows (most, 6). */
APART void integer_products_of(images from, int64_t first, int64_t count, int64_t most, const int16_t *kernel,
                                const float *scales, int64_t columns, float *products, float *scales_of_rows, float *room)
{
    const int64_t n = from.of_x.channels + from.of_more.channels, depth = n + n % 2, apart = most * depth + GAP;
    const int64_t parts = (n + DEPTH - 1) / DEPTH;
    int16_t *values = (int16_t *)room;
    float *columns_there = room + 36 * (most * n + GAP);
    integers_at_points(from, first, count, scales_of_rows, values, depth, apart, columns_there);
    for (int p = 0; p < 36; p++)
        product_of_integers(values + p * apart, by_rows(depth), 0, count, kernel + p * depth * columns,
                            scales + p * parts * columns, products + p * (most * columns + GAP), columns, columns, depth);
}
#endif

/* Fills `count` tiles of the outputs from the first on; see `convolve`. */
static void convolve_tiles(images from, factor by, const output *outputs, int64_t number, shape of_result, int64_t first,
                           int64_t count, int64_t most, float *room)
{
    const int64_t apart = most * by.columns + GAP;
    float *products = room, *rest = products + 36 * apart;
    if (!by.scales) {
        products_of(from, first, count, most, by.kernel, by.columns, products, rest);
        results(products, by.columns, apart, 0, by.bias, outputs, number, of_result, first, count);
    }
#if HAS_INTEGERS
    else {
        integer_products_of(from, first, count, most, by.kernel, by.scales, by.columns, products, rest, rest + 6 * most);
        results(products, by.columns, apart, rest, by.bias, outputs, number, of_result, first, count);
    }
#endif
}
