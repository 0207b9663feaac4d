/* What becomes of the products at Winograd's points: outputs, with what is added to them, and ReLU. */
#pragma once
#include "winograd_points.h"

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

/* Writes some rows of a column of results, from value `to` of an output on, and `added` of what is added to it. */
INLINE void finish(vec *r, output o, int64_t to, int64_t added, int half, int some, int rows)
{
    if (o.added.values)
#pragma GCC unroll 4
        for (int i = 0; i < rows; i++, added += o.added.row)
            r[i] += some ? get_some(o.added.values, half, added, o.channels) : get_from(o.added.values, half, added);
    if (o.relu)
        for (int i = 0; i < 4; i++)
            r[i] = relu_of(r[i], (float)o.slope);
#pragma GCC unroll 4
    for (int i = 0; i < rows; i++, to += o.to.row)
        if (some)
            put_some(o.to.values, half, to, r[i], o.channels);
        else
            put_into(o.to.values, half, to, r[i]);
}

/* Fills tiles of an output from the products at the points, times those of scales (tiles, 6), if there are any; bias may be
 * null. `some`: there are fewer channels than LANES. */
INLINE void from_points(const float *from, int64_t row, int64_t apart, const float *scales, const float *bias, output o,
                        shape s, int half, int some, int64_t first, int64_t count)
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
                for (int j = 0; scales && j < 4; j++)
                    lines[i][j] *= scales[t * 6 + i];
            }
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) {
                vec m[6], r[4];
                for (int i = 0; i < 6; i++)
                    m[i] = lines[i][j];
                to_results(r, m);
                if (j >= right)
                    continue;
                for (int i = 0; i < 4; i++)
                    r[i] += constant;
                const int64_t here = to + j * o.to.pixel + at, there = added + j * o.added.pixel + at;
                if (below < 4)
                    finish(r, o, here, there, half, some, (int)below);
                else
                    finish(r, o, here, there, half, some, 4);
            }
        }
    }
}

APART void results(const float *from, int64_t row, int64_t apart, const float *scales, const float *bias,
                    const output *outputs, int64_t number, shape s, int64_t first, int64_t count)
{
    for (int64_t i = 0; i < number; i++) {
        const output o = outputs[i];
        if (o.channels < LANES)
            from_points(from, row, apart, scales, bias, o, s, s.half, 1, first, count);
        else if (s.half)
            from_points(from, row, apart, scales, bias, o, s, 1, 0, first, count);
        else if (scales)
            from_points(from, row, apart, scales, bias, o, s, 0, 0, first, count);
        else
            from_points(from, row, apart, 0, bias, o, s, 0, 0, first, count);
        from += o.channels;
        bias = bias ? bias + o.channels : bias;
    }
}
