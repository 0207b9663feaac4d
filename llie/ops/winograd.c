/* The tiles of Winograd's convolutions on a CPU, sixteen channels a vector; see winograd.py for the method.
 *
 * Maps are (batch, height, width, channels) without gaps; beyond their edges are zeros. The values of a tile at the 6x6
 * points are in 36 matrices (tiles, channels), which follow each other. Plain C with GNU vector extensions.
 */
#include <stdint.h>
#include <string.h>

#define LANES 16
#define INLINE static inline __attribute__((always_inline))

/* The points are 0, A, -A, B, -B and infinity, and A B = 1. */
#define A (2.0f / 3)
#define B (3.0f / 2)
#define SUM (A * A + B * B)
#define OF_A (B / (2 * (A * A - B * B)))
#define OF_B (A / (2 * (B * B - A * A)))

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef struct { int64_t height, width, channels, down, across; } shape; /* down, across: numbers of tiles */

INLINE vec load(const float *from, int n)
{
    vec v = {};
    memcpy(&v, from, 4 * (size_t)n);
    return v;
}

INLINE void store(float *to, vec v, int n) { memcpy(to, &v, 4 * (size_t)n); }

/* Six values of a map at the points. */
INLINE void image_at_points(vec *to, int step, vec d0, vec d1, vec d2, vec d3, vec d4, vec d5)
{
    vec even_a = OF_A * (d4 - B * B * d2), odd_a = OF_A * A * (d3 - B * B * d1);
    vec even_b = OF_B * (d4 - A * A * d2), odd_b = OF_B * B * (d3 - A * A * d1);
    to[0] = d4 - SUM * d2 + d0;
    to[step] = even_a + odd_a;
    to[2 * step] = even_a - odd_a;
    to[3 * step] = even_b + odd_b;
    to[4 * step] = even_b - odd_b;
    to[5 * step] = d5 - SUM * d3 + d1;
}

/* Six values at the points to four results. */
INLINE void to_results(vec *to, int step, vec m0, vec m1, vec m2, vec m3, vec m4, vec m5)
{
    vec sum_a = m1 + m2, difference_a = m1 - m2, sum_b = m3 + m4, difference_b = m3 - m4;
    to[0] = m0 + sum_a + sum_b;
    to[step] = A * difference_a + B * difference_b;
    to[2 * step] = A * A * sum_a + B * B * sum_b;
    to[3 * step] = A * A * A * difference_a + B * B * B * difference_b + m5;
}

/* The transpose of `to_results`. */
INLINE void results_at_points(vec *to, int step, vec g0, vec g1, vec g2, vec g3)
{
    vec even_a = g0 + A * A * g2, odd_a = A * g1 + A * A * A * g3;
    vec even_b = g0 + B * B * g2, odd_b = B * g1 + B * B * B * g3;
    to[0] = g0;
    to[step] = even_a + odd_a;
    to[2 * step] = even_a - odd_a;
    to[3 * step] = even_b + odd_b;
    to[4 * step] = even_b - odd_b;
    to[5 * step] = g3;
}

/* Up to sixteen channels of one tile, side x side values from (y, x) on, at the points. */
INLINE void tile_at_points(const float *map, shape s, int64_t y, int64_t x, int side, float *to, int64_t apart,
                           const int64_t *order, int n)
{
    vec d[6][6], half[6][6], all[6];
    int inside = y >= 0 && x >= 0 && y + side <= s.height && x + side <= s.width;
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++) {
            int here = inside || (y + i >= 0 && y + i < s.height && x + j >= 0 && x + j < s.width);
            d[i][j] = here ? load(map + ((y + i) * s.width + x + j) * s.channels, n) : (vec){};
        }
    for (int j = 0; j < side; j++)
        if (side == 6)
            image_at_points(&half[0][j], 6, d[0][j], d[1][j], d[2][j], d[3][j], d[4][j], d[5][j]);
        else
            results_at_points(&half[0][j], 6, d[0][j], d[1][j], d[2][j], d[3][j]);
    for (int i = 0; i < 6; i++) {
        const vec *h = half[i];
        if (side == 6)
            image_at_points(all, 1, h[0], h[1], h[2], h[3], h[4], h[5]);
        else
            results_at_points(all, 1, h[0], h[1], h[2], h[3]);
        for (int j = 0; j < 6; j++)
            store(to + (order[i] * 6 + order[j]) * apart, all[j], n);
    }
}

INLINE void at_points(const float *map, shape s, int64_t first, int64_t count, int side, float *to,
                      const int64_t *order, int threads)
{
    const int64_t each = s.down * s.across, margin = side == 6;
#pragma omp parallel for num_threads(threads)
    for (int64_t t = 0; t < count; t++) {
        int64_t image = (first + t) / each, place = (first + t) % each, c = 0;
        int64_t y = place / s.across * 4 - margin, x = place % s.across * 4 - margin;
        const float *from = map + image * s.height * s.width * s.channels;
        float *row = to + t * s.channels;
        for (; c + LANES <= s.channels; c += LANES)
            tile_at_points(from + c, s, y, x, side, row + c, count * s.channels, order, LANES);
        if (c < s.channels)
            tile_at_points(from + c, s, y, x, side, row + c, count * s.channels, order, (int)(s.channels - c));
    }
}

/* Tiles first, first + 1, ... of a map and the values around them; point i of an axis has place order[i]. */
void images_at_points(const float *map, shape s, int64_t first, int64_t count, float *to, const int64_t *order,
                      int threads)
{
    at_points(map, s, first, count, 6, to, order, threads);
}

/* The same of gradients of results, by the transpose of `results`. */
void gradients_at_points(const float *map, shape s, int64_t first, int64_t count, float *to, const int64_t *order,
                         int threads)
{
    at_points(map, s, first, count, 4, to, order, threads);
}

INLINE void tile_of_results(const float *from, int64_t apart, const int64_t *order, const float *bias, float *map,
                            shape s, int64_t y, int64_t x, int n)
{
    vec half[4][6], all[4], b = bias ? load(bias, n) : (vec){};
    for (int j = 0; j < 6; j++) {
        vec m[6];
        for (int i = 0; i < 6; i++)
            m[i] = load(from + (order[i] * 6 + order[j]) * apart, n);
        to_results(&half[0][j], 6, m[0], m[1], m[2], m[3], m[4], m[5]);
    }
    for (int i = 0; i < 4 && y + i < s.height; i++) {
        const vec *h = half[i];
        to_results(all, 1, h[0], h[1], h[2], h[3], h[4], h[5]);
        for (int j = 0; j < 4 && x + j < s.width; j++)
            store(map + ((y + i) * s.width + x + j) * s.channels, all[j] + b, n);
    }
}

/* Fills these tiles of a map from the products at the points; bias may be null. */
void results(const float *from, const float *bias, float *map, shape s, int64_t first, int64_t count,
             const int64_t *order, int threads)
{
    const int64_t each = s.down * s.across;
#pragma omp parallel for num_threads(threads)
    for (int64_t t = 0; t < count; t++) {
        int64_t image = (first + t) / each, place = (first + t) % each, c = 0;
        int64_t y = place / s.across * 4, x = place % s.across * 4;
        const float *row = from + t * s.channels;
        float *to = map + image * s.height * s.width * s.channels;
        for (; c + LANES <= s.channels; c += LANES)
            tile_of_results(row + c, count * s.channels, order, bias ? bias + c : 0, to + c, s, y, x, LANES);
        if (c < s.channels)
            tile_of_results(row + c, count * s.channels, order, bias ? bias + c : 0, to + c, s, y, x,
                            (int)(s.channels - c));
    }
}
