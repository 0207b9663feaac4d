/* Winograd's convolutions of tiles on a CPU; see winograd.py for the method.
 *
 * Maps are (batch, height, width, channels) without gaps, in float32 or bfloat16; beyond their edges are zeros. The
 * values of tiles at the 6x6 points are in 36 matrices (tiles, channels), for a few tiles at a time, so that they and
 * their products stay in the cache. Every map that is read has at least LANES channels; the last vector of a pixel overlaps the one
 * before. Plain C with GNU vector extensions.
 */
#pragma once
#include "integers.h"
#include "products.h"

#define GAP 16 /* values between matrices, because powers of two would share places in the cache */

/* The points are 0, A, -A, B, -B and infinity, and A B = 1. */
#define A (2.0f / 3)
#define B (3.0f / 2)
#define SUM (A * A + B * B)
#define OF_A (B / (2 * (A * A - B * B)))
#define OF_B (A / (2 * (B * B - A * A)))

typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
/* half: whether its type is bfloat16; down, across: numbers of tiles. */
typedef struct { int64_t height, width, channels, down, across, half; } shape;

/* Some channels of a map, from value `at` on. */
INLINE vec get_from(const void *map, int half, int64_t at)
{
    if (!half)
        return get((const float *)map + at);
    halves h;
    memcpy(&h, (const uint16_t *)map + at, sizeof h);
    return (vec)(__builtin_convertvector(h, words) << 16);
}

INLINE halves rounded(vec v)
{
    words bits = (words)v;
    bits += 0x7fff + (bits >> 16 & 1); /* to the nearest, and from the middle to the even one */
    return __builtin_convertvector(bits >> 16, halves);
}

INLINE void put_into(void *map, int half, int64_t at, vec v)
{
    if (half) {
        const halves h = rounded(v);
        memcpy((uint16_t *)map + at, &h, sizeof h);
    } else
        put((float *)map + at, v);
}

/* Six values of a map at the points. */
INLINE void image_at_points(vec *to, const vec *d)
{
    vec even_a = OF_A * (d[4] - B * B * d[2]), odd_a = OF_A * A * (d[3] - B * B * d[1]);
    vec even_b = OF_B * (d[4] - A * A * d[2]), odd_b = OF_B * B * (d[3] - A * A * d[1]);
    to[0] = d[4] - SUM * d[2] + d[0];
    to[1] = even_a + odd_a;
    to[2] = even_a - odd_a;
    to[3] = even_b + odd_b;
    to[4] = even_b - odd_b;
    to[5] = d[5] - SUM * d[3] + d[1];
}

/* Six values at the points to four results. */
INLINE void to_results(vec *to, const vec *m)
{
    vec sum_a = m[1] + m[2], difference_a = m[1] - m[2], sum_b = m[3] + m[4], difference_b = m[3] - m[4];
    to[0] = m[0] + sum_a + sum_b;
    to[1] = A * difference_a + B * difference_b;
    to[2] = A * A * sum_a + B * B * sum_b;
    to[3] = A * A * A * difference_a + B * B * B * difference_b + m[5];
}

/* The transpose of `to_results`. */
INLINE void results_at_points(vec *to, const vec *g)
{
    vec even_a = g[0] + A * A * g[2], odd_a = A * g[1] + A * A * A * g[3];
    vec even_b = g[0] + B * B * g[2], odd_b = B * g[1] + B * B * B * g[3];
    to[0] = g[0];
    to[1] = even_a + odd_a;
    to[2] = even_a - odd_a;
    to[3] = even_b + odd_b;
    to[4] = even_b - odd_b;
    to[5] = g[3];
}

/* `count` tiles from the first on, side x side values each, at the points; neighbours share columns, if side is 6. */
INLINE void at_points(const void *map, shape s, int half, int side, int64_t above, int64_t first, int64_t count,
                      float *to, int64_t row, int64_t apart, float *columns)
{
    const int64_t n = s.channels, line = s.width * n, margin = side == 6, each = s.down * s.across;
    for (int64_t t = 0; t < count; t++) {
        const int64_t image = (first + t) / each * s.height * line, place = (first + t) % each;
        const int64_t y = place / s.across * 4 - margin + above, x = place % s.across * 4 - margin;
        const int known = side == 6 && t && place % s.across ? 2 : 0;
        float *slots[6]; /* of this tile's columns, each (6, channels) */
        for (int j = 0; j < side; j++)
            slots[j] = columns + (x + margin + j) % 6 * 6 * n;
        for (int j = known; j < side; j++)
            for (int64_t c = 0; c < n; c += LANES) {
                vec d[6], h[6];
                const int64_t at = start(c, n);
                for (int i = 0; i < side; i++) {
                    const int inside = y + i >= 0 && y + i < s.height && x + j >= 0 && x + j < s.width;
                    d[i] = inside ? get_from(map, half, image + (y + i) * line + (x + j) * n + at) : (vec){};
                }
                side == 6 ? image_at_points(h, d) : results_at_points(h, d);
                for (int i = 0; i < 6; i++)
                    put(slots[j] + i * n + at, h[i]);
            }
        for (int i = 0; i < 6; i++)
            for (int64_t c = 0; c < n; c += LANES) {
                vec d[6], h[6];
                const int64_t at = start(c, n);
                for (int j = 0; j < side; j++)
                    d[j] = get(slots[j] + i * n + at);
                side == 6 ? image_at_points(h, d) : results_at_points(h, d);
                for (int j = 0; j < 6; j++)
                    put(to + (i * 6 + j) * apart + t * row + at, h[j]);
            }
    }
}

static void images_at_points(const void *map, shape s, int64_t above, int64_t first, int64_t count, float *to,
                             int64_t row, int64_t apart, float *columns)
{
    if (s.half)
        at_points(map, s, 1, 6, above, first, count, to, row, apart, columns);
    else
        at_points(map, s, 0, 6, above, first, count, to, row, apart, columns);
}

/* ReLU, or that times `slope` where values are negative; keeps NaN. */
INLINE vec relu_of(vec v, float slope)
{
    const words below = (words)(v < 0);
    return (vec)((~below & (words)v) | (slope ? below & (words)(slope * v) : (words){}));
}

/* A map with adjacent channels: its first value, and values from image to image, row to row and pixel to pixel. */
typedef struct { void *values; int64_t image, row, pixel; } map;

/* Where some channels of a result go, and what happens to them before that.
 *
 * added: is added to them, if it has values; it may be `to`, if channels are whole vectors. relu: whether they get ReLU,
 * too, with a slope for negative values.
 */
typedef struct { map to, added; int64_t channels, relu; double slope; } output;

INLINE float widened(uint16_t half)
{
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The first `count` lanes, fewer than all. */
INLINE vec get_some(const void *from, int half, int64_t at, int64_t count)
{
    vec v = {};
#pragma GCC unroll 8
    for (int lane = 0; lane < LANES - 1; lane++)
        if (lane < count)
            v[lane] = half ? widened(((const uint16_t *)from)[at + lane]) : ((const float *)from)[at + lane];
    return v;
}

INLINE void put_some(void *to, int half, int64_t at, vec v, int64_t count)
{
    const halves h = rounded(v);
#pragma GCC unroll 8
    for (int lane = 0; lane < LANES - 1; lane++)
        if (lane < count) {
            if (half)
                ((uint16_t *)to)[at + lane] = h[lane];
            else
                ((float *)to)[at + lane] = v[lane];
        }
}

/* Fills tiles of an output from the products at the points; bias may be null. `some`: there are fewer channels than LANES. */
INLINE void from_points(const float *from, int64_t row, int64_t apart, const float *bias, output o, shape s, int half,
                        int some, int64_t first, int64_t count)
{
    const int64_t each = s.down * s.across;
    for (int64_t t = 0; t < count; t++) {
        const int64_t image = (first + t) / each, place = (first + t) % each;
        const int64_t y = place / s.across * 4, x = place % s.across * 4;
        const int64_t below = s.height - y, right = s.width - x; /* rows and columns that are left */
        const int64_t to = image * o.to.image + y * o.to.row + x * o.to.pixel;
        const int64_t added = image * o.added.image + y * o.added.row + x * o.added.pixel;
        for (int64_t c = 0; c < o.channels; c += LANES) {
            const int64_t at = some ? 0 : start(c, o.channels);
            vec lines[6][4], constant = bias ? get(bias + at) : (vec){};
            for (int i = 0; i < 6; i++) {
                vec m[6];
                for (int j = 0; j < 6; j++)
                    m[j] = get(from + (i * 6 + j) * apart + t * row + at);
                to_results(lines[i], m);
            }
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                vec m[6], r[4];
                for (int i = 0; i < 6; i++)
                    m[i] = lines[i][j];
                to_results(r, m);
                if (j < right)
#pragma GCC unroll 4
                    for (int i = 0; i < 4; i++)
                        if (i < below) {
                            const int64_t here = to + i * o.to.row + j * o.to.pixel + at;
                            const int64_t there = added + i * o.added.row + j * o.added.pixel + at;
                            r[i] += constant;
                            if (o.added.values)
                                r[i] += some ? get_some(o.added.values, half, there, o.channels)
                                             : get_from(o.added.values, half, there);
                            if (o.relu)
                                r[i] = relu_of(r[i], (float)o.slope);
                            if (some)
                                put_some(o.to.values, half, here, r[i], o.channels);
                            else
                                put_into(o.to.values, half, here, r[i]);
                        }
            }
        }
    }
}

static void results(const float *from, int64_t row, int64_t apart, const float *bias, const output *outputs,
                    int64_t number, shape s, int64_t first, int64_t count)
{
    for (int64_t i = 0; i < number; i++) {
        const output o = outputs[i];
        if (o.channels < LANES)
            from_points(from, row, apart, bias, o, s, s.half, 1, first, count);
        else if (s.half)
            from_points(from, row, apart, bias, o, s, 1, 0, first, count);
        else
            from_points(from, row, apart, bias, o, s, 0, 0, first, count);
        from += o.channels;
        bias = bias ? bias + o.channels : bias;
    }
}

/* The values of some tiles at one point, (count, n), times a kernel there, in integers. */
INLINE void rounded_product(const float *values, int64_t n, int64_t count, const int16_t *kernel, const float *scales,
                            float *to, int64_t columns, float *room)
{
#if HAS_INTEGERS
    const int64_t depth = n + n % 2, whole = (count + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE * ROWS_AT_ONCE;
    int16_t *numbers = (int16_t *)(room + whole);
    for (int64_t t = 0; t < count; t++)
        room[t] = rounded_row(values + t * n, n, numbers + t * depth);
    memset(room + count, 0, 4 * (whole - count));
    product_of_integers(numbers, depth, room, count, kernel, scales, to, columns, columns, depth);
#endif
}

/* What a convolution multiplies by: 36 kernels (channels, columns) at the points, from `kernels_at_points`, with GAP between
 * them; with scales, from `kernels_in_integers`. bias: LANES values more than channels of the result, or null.
 */
typedef struct { const void *kernel; const float *scales, *bias; int64_t columns; } factor;

/* Values of room that `convolve_tiles` needs, for up to `most` tiles. */
INLINE int64_t room_of_tiles(int64_t most, int64_t channels, int64_t columns)
{
    return 36 * (most * (channels + columns) + 2 * GAP + channels) + most * (channels + 2);
}

/* Fills `count` tiles of the outputs from the first on; see `convolve`. */
static void convolve_tiles(const void *x, shape of_x, const void *more, shape of_more, int64_t above, factor by,
                           const output *outputs, int64_t number, shape of_result, int64_t first, int64_t count,
                           int64_t most, float *room)
{
    const int64_t n = of_x.channels + of_more.channels, columns = by.columns;
    const int64_t apart = most * n + GAP, apart_of_result = most * columns + GAP;
    const int64_t whole = (n + n % 2) * columns, parts = (n + DEPTH - 1) / DEPTH;
    float *products = room + 36 * apart, *scratch = products + 36 * apart_of_result;
    images_at_points(x, of_x, above, first, count, room, n, apart, scratch);
    if (of_more.channels)
        images_at_points(more, of_more, above, first, count, room + of_x.channels, n, apart, scratch);
    for (int p = 0; p < 36; p++)
        if (by.scales)
            rounded_product(room + p * apart, n, count, (const int16_t *)by.kernel + p * whole,
                            by.scales + p * parts * columns, products + p * apart_of_result, columns,
                            scratch + 36 * n);
        else
            product(room + p * apart, n, 1, count, (const float *)by.kernel + p * (n * columns + GAP), 1,
                    products + p * apart_of_result, columns, n, 0);
    results(products, columns, apart_of_result, by.bias, outputs, number, of_result, first, count);
}
