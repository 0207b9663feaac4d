/* Tiles of maps at Winograd's points, and back; see winograd.py for the method, winograd.c for the maps. */
#pragma once
#include "integers.h"
#include "products.h"

#define LINES 16384 /* values at once that were taken to the points in one direction: they stay in the fastest cache */
#define GAP 16 /* values between matrices, because powers of two would share places in the cache */

/* The points are 0, A, -A, B, -B and infinity, and A B = 1. */
#define A (2.0f / 3)
#define B (3.0f / 2)
#define SUM (A * A + B * B)
#define OF_A (B / (2 * (A * A - B * B)))
#define OF_B (A / (2 * (B * B - A * A)))

typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
/* half: whether its type is bfloat16; down, across: numbers of tiles; replicated: whether its outermost values are beyond its
 * edges, and not zeros.
 */
typedef struct { int64_t height, width, channels, down, across, half, replicated; } shape;

#if HAS_INTEGERS
_Static_assert(ROWS % ROWS_AT_ONCE == 0 && LANES == CHUNK, "of products in integers, too");
#else
#define put_integers(to, v) ((void)(to)) /* never called */
#endif

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

/* Three values of a kernel at the points. */
INLINE void kernel_at_points(vec *to, const vec *k)
{
    vec even_a = B * k[0] + A * k[2], even_b = A * k[0] + B * k[2];
    to[0] = k[0];
    to[1] = even_a + k[1];
    to[2] = even_a - k[1];
    to[3] = even_b + k[1];
    to[4] = even_b - k[1];
    to[5] = k[2];
}

/* Tiles that are neighbours in a row, and the place of the first one in its image. */
typedef struct { int64_t image, y, x, tiles; } run;

/* Those from a tile on, at most `count`, as many as there is room for; side: of a tile. */
INLINE run run_from(shape s, int64_t side, int64_t above, int64_t tile, int64_t count, int64_t channels)
{
    const int64_t each = s.down * s.across, place = tile % each, margin = side == 6, right = s.across - place % s.across;
    const int64_t most = LINES / (24 * channels) > 1 ? LINES / (24 * channels) : 1, here = count < most ? count : most;
    return (run){tile / each, place / s.across * 4 - margin + above, place % s.across * 4 - margin,
                 here < right ? here : right};
}

/* Six vectors, `apart` values from one to the next. */
INLINE void put_apart(float *to, const vec *h, int64_t apart)
{
    float *const fourth = OPAQUE(to + 3 * apart);
    for (int i = 0; i < 6; i++)
        put(i < 3 ? to + i * apart : fourth + (i - 3) * apart, h[i]);
}

/* The columns of some tiles, `side` values each, at the points: (6, columns, channels). If side is 6, neighbours share some. */
INLINE void columns_at_points(const void *map, shape s, int half, int side, run r, float *to)
{
    const int64_t n = s.channels, line = s.width * n, wide = 4 * r.tiles + side - 4, left = r.x < 0 ? -r.x : 0;
    const int64_t right = wide < s.width - r.x ? wide : s.width - r.x, numbers = (right - left) * n;
    const int64_t first = r.image * s.height * line + r.y * line + (r.x + left) * n;
    const int inside = r.y >= 0 && r.y + side <= s.height;
    int64_t lines[6];
    int known[6];
    for (int i = 0; i < side; i++) {
        const int64_t y = r.y + i, nearest = y < 0 ? 0 : y < s.height ? y : s.height - 1;
        known[i] = y == nearest || s.replicated;
        lines[i] = first + (nearest - r.y) * line;
    }
    for (int64_t c = 0; c < numbers; c += LANES) {
        vec d[6], h[6];
        const int64_t at = start(c, numbers), fourth = OPAQUE(first + 3 * line + at);
        for (int i = 0; i < side; i++)
            d[i] = inside ? get_from(map, half, i < 3 ? first + at + i * line : fourth + (i - 3) * line)
                          : known[i] ? get_from(map, half, lines[i] + at) : (vec){};
        side == 6 ? image_at_points(h, d) : results_at_points(h, d);
        put_apart(to + left * n + at, h, wide * n);
    }
    for (int i = 0; i < 6; i++) {
        float *const begin = to + i * wide * n, *const end = begin + right * n;
        memset(begin, 0, sizeof(float) * left * n);
        memset(end, 0, sizeof(float) * (wide - right) * n);
        for (int64_t x = 0; s.replicated && x < left; x++)
            memcpy(begin + x * n, begin + left * n, sizeof(float) * n);
        for (int64_t x = right; s.replicated && x < wide; x++)
            memcpy(begin + x * n, end - n, sizeof(float) * n);
    }
}

/* What a value of an image at a point is at most, in largest values of its row of columns at the points. */
static const float at_most[6] = {
    2 + SUM, -OF_A * (1 + A) * (1 + B * B), -OF_A * (1 + A) * (1 + B * B), OF_B * (1 + B) * (1 + A * A),
    OF_B * (1 + B) * (1 + A * A), 2 + SUM,
};

/* Tiles at the points, from their columns there; the matrices are `apart`, their rows, of one tile each, `row` values.
 *
 * factors: (tiles, 6), if there are any: `to` gets integers, values times those over what they are at most.
 */
INLINE void rows_at_points(const float *columns, int64_t n, int side, int64_t tiles, const float *factors, void *to,
                           int64_t row, int64_t apart)
{
    const int64_t wide = 4 * tiles + side - 4;
    for (int64_t t = 0; t < tiles; t++)
        for (int i = 0; i < 6; i++) {
            vec times[6];
            for (int j = 0; j < 6; j++)
                times[j] = (vec){} + (factors ? factors[t * 6 + i] / at_most[j] : 0);
            for (int64_t c = 0; c < n; c += LANES) {
                vec d[6], h[6];
                const int64_t at = start(c, n), there = i * 6 * apart + t * row + at;
                const float *from = columns + (i * wide + 4 * t) * n + at, *fourth = OPAQUE(from + 3 * n);
                for (int j = 0; j < side; j++)
                    d[j] = get(j < 3 ? from + j * n : fourth + (j - 3) * n);
                side == 6 ? image_at_points(h, d) : results_at_points(h, d);
                for (int j = 0; j < 6 && factors; j++)
                    put_integers((int16_t *)to + there + j * apart, (__m256)(times[j] * h[j]));
                if (!factors)
                    put_apart((float *)to + there, h, apart);
            }
        }
}

/* `count` tiles from the first on at the points. columns: room for LINES values, and for those of a tile. */
INLINE void at_points(const void *map, shape s, int half, int side, int64_t above, int64_t first, int64_t count,
                      float *to, int64_t row, int64_t apart, float *columns)
{
    run r;
    for (int64_t t = 0; t < count; t += r.tiles) {
        r = run_from(s, side, above, first + t, count - t, s.channels);
        columns_at_points(map, s, half, side, r, columns);
        rows_at_points(columns, s.channels, side, r.tiles, 0, to + t * row, row, apart);
    }
}

APART void images_at_points(const void *map, shape s, int64_t above, int64_t first, int64_t count, float *to,
                             int64_t row, int64_t apart, float *columns)
{
    if (s.half)
        at_points(map, s, 1, 6, above, first, count, to, row, apart, columns);
    else
        at_points(map, s, 0, 6, above, first, count, to, row, apart, columns);
}

INLINE void gradients_at_points(const void *map, shape s, int64_t first, int64_t count, float *to, int64_t row,
                                int64_t apart, float *columns)
{
    if (s.half)
        at_points(map, s, 1, 4, 0, first, count, to, row, apart, columns);
    else
        at_points(map, s, 0, 4, 0, first, count, to, row, apart, columns);
}

/* A map, and another one, whose channels come after those of the first one, if there are any; row `above` of both belongs
 * to the first row of the result.
 */
typedef struct { const void *x, *more; shape of_x, of_more; int64_t above; } images;

#if HAS_INTEGERS
/* Most of a value of a tile in integers, and of the sum of a column of `depth` numbers, so that no sum exceeds 32 bits:
 * both lose as many digits.
 */
INLINE float most_of_value(int64_t depth) { return depth <= 96 ? 16000 : 9500; }
INLINE float most_of_column(int64_t depth) { return depth <= 96 ? 132000 : 222000; }

APART void image_columns_at_points(const void *map, shape s, run r, float *to)
{
    if (s.half)
        columns_at_points(map, s, 1, 6, r, to);
    else
        columns_at_points(map, s, 0, 6, r, to);
}

APART void integer_rows_at_points(const float *columns, int64_t n, int64_t tiles, const float *factors, int16_t *to,
                                  int64_t row, int64_t apart)
{
    rows_at_points(columns, n, 6, tiles, factors, to, row, apart);
}

/* Some tiles at the points in integers. Values of row i of tile t have to be multiplied by scales[t * 6 + i]. */
APART void integers_at_points(images from, int64_t first, int64_t count, float *scales, int16_t *to, int64_t row,
                              int64_t apart, float *columns)
{
    const int64_t n = from.of_x.channels, others = from.of_more.channels;
    run r;
    for (int64_t t = 0; t < count; t += r.tiles) {
        r = run_from(from.of_x, 6, from.above, first + t, count - t, n + others);
        const int64_t wide = 4 * r.tiles + 2;
        float *more = columns + 6 * wide * n, factors[6 * r.tiles];
        image_columns_at_points(from.x, from.of_x, r, columns);
        if (others)
            image_columns_at_points(from.more, from.of_more, r, more);
        for (int64_t u = 0; u < r.tiles; u++)
            for (int i = 0; i < 6; i++) {
                magnitudes most = {};
                for (int64_t c = 0; c < 6 * n; c += LANES)
                    most = larger(most, (__m256)get(columns + (i * wide + 4 * u) * n + start(c, 6 * n)));
                for (int64_t c = 0; c < 6 * others; c += LANES)
                    most = larger(most, (__m256)get(more + (i * wide + 4 * u) * others + start(c, 6 * others)));
                const float largest = largest_of(most);
                factors[u * 6 + i] = largest > 0 ? most_of_value(n + others) / largest : 0;
                scales[(t + u) * 6 + i] = largest / most_of_value(n + others);
            }
        integer_rows_at_points(columns, n, r.tiles, factors, to + t * row, row, apart);
        if (others)
            integer_rows_at_points(more, others, r.tiles, factors, to + t * row + n, row, apart);
        for (int p = 0; (n + others) % 2 && p < 36; p++)
            for (int64_t u = t; u < t + r.tiles; u++)
                to[p * apart + u * row + n + others] = 0;
    }
}
#endif
