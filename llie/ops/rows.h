/* Rows of maps, for kernels that take a row through several steps at once.
 *
 * Maps are (height, width, channels) without gaps. Inside a kernel, a row is (vectors of channels, pixels, lanes), with a
 * pixel of zeros on both sides, and channels are filled up with zeros. Plain C with GNU vector extensions.
 */
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
#define LANES 16
#define BLOCK 8 /* rows of a product that are in registers, each of three vectors */
#else
#define LANES 8
#define BLOCK 4
#endif
#define INLINE static inline __attribute__((always_inline))
#define CACHE (1 << 20) /* bytes of all rows that are kept */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* at any address */
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef int16_t shorts __attribute__((vector_size(2 * LANES)));
typedef float quad __attribute__((vector_size(16)));

INLINE vec choose(ints where, vec a, vec b) { return (vec)((where & (ints)a) | (~where & (ints)b)); }

/* Values between -limit and limit; NaN remains. */
INLINE vec between_limits(vec v, float limit)
{
    const vec most = (vec){} + limit;
#if defined(__AVX512F__)
    return (vec)_mm512_max_ps((__m512)-most, _mm512_min_ps((__m512)most, (__m512)v));
#elif defined(__AVX__)
    return (vec)_mm256_max_ps((__m256)-most, _mm256_min_ps((__m256)most, (__m256)v));
#else
    return choose(v > most, most, choose(v < -most, -most, v));
#endif
}

INLINE vec load(const float *from) { return *(const loose *)from; }

static inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t parts(int64_t n, int64_t size) { return (n + size - 1) / size; }

static inline void *room(int64_t bytes)
{
    void *found = aligned_alloc(64, parts(bytes, 64) * 64);
    if (!found)
        abort();
    return memset(found, 0, bytes);
}

/* Rows and columns of a map: those whose results are wanted, and those around them. */
typedef struct { int64_t top, bottom, left, right; } area;

/* ---- rows ---- */

typedef struct { vec *first; int64_t step, vectors; } row; /* step: vectors from one vector of channels to the next */

static inline int64_t step_of(int64_t width) { return parts(width, BLOCK) * BLOCK + 2; }

static inline row new_row(int64_t vectors, int64_t width)
{
    /* Beyond them is room for a number for each pixel. */
    return (row){(vec *)room(sizeof(vec) * (vectors * step_of(width) + parts(step_of(width), LANES) + 1)) + 1, step_of(width), vectors};
}

static inline void free_row(row r) { free(r.first - 1); }

/* A row of zeros, and the last three of a step; the row y has place y % 3 + 1. */
typedef struct { row rows[4]; int64_t height; } window;

static inline window new_window(int64_t vectors, int64_t width, int64_t height)
{
    window w = {.height = height};
    for (int i = 0; i < 4; i++)
        w.rows[i] = new_row(vectors, width);
    return w;
}

static inline void free_window(window *w)
{
    for (int i = 0; i < 4; i++)
        free_row(w->rows[i]);
}

static inline row at(const window *w, int64_t y) { return w->rows[y < 0 || y >= w->height ? 0 : y % 3 + 1]; }

/* A product wrote to the pixels that fill up its last block; the one beyond the edge must be zero. */
static inline void end_at(row r, int64_t width)
{
    for (int64_t v = 0; v < r.vectors; v++)
        r.first[v * r.step + width] = (vec){};
}

/* How many of `count` pixels in a row of a map have at least LANES values from channel `from` on: those of later pixels, too. */
INLINE int64_t followed(int64_t count, int64_t channels, int64_t from)
{
    const int64_t values = count * channels - from - LANES;
    return values < 0 ? 0 : values / channels + 1;
}

/* The first `count` lanes, and zeros. */
INLINE ints lanes_before(int64_t count)
{
    ints some;
    for (int i = 0; i < LANES; i++)
        some[i] = i < count ? -1 : 0;
    return some;
}

/* The last vector of channels may be a part of one. */
static inline void read_row(const float *map, int64_t channels, int64_t width, row to)
{
    int64_t whole = channels / LANES, rest = channels % LANES, simple = followed(width, channels, whole * LANES);
    const ints some = lanes_before(rest);
    for (int64_t x = 0; x < width; x++) {
        const float *from = map + x * channels;
        for (int64_t v = 0; v < whole; v++)
            to.first[v * to.step + x] = load(from + v * LANES);
        if (rest && x < simple)
            to.first[whole * to.step + x] = (vec)((ints)load(from + whole * LANES) & some);
        else if (rest) {
            vec last = {};
            for (int64_t i = 0; i < rest; i++)
                last[i] = from[whole * LANES + i];
            to.first[whole * to.step + x] = last;
        }
    }
}

static inline void write_row(row from, int64_t left, int64_t right, float *map, int64_t channels)
{
    int64_t whole = channels / LANES, rest = channels % LANES;
    /* A whole vector may be written for a part of one where the next pixel is written afterwards. */
    int64_t simple = whole ? left + followed(right - left, channels, whole * LANES) : left;
    for (int64_t x = left; x < right; x++) {
        float *to = map + x * channels;
        for (int64_t v = 0; v < whole; v++)
            *(loose *)(to + v * LANES) = from.first[v * from.step + x];
        if (rest && x < simple)
            *(loose *)(to + whole * LANES) = from.first[whole * from.step + x];
        else
            for (int64_t i = 0; i < rest; i++)
                to[whole * LANES + i] = from.first[whole * from.step + x][i];
    }
}

/* ---- parts of a map ---- */

/* Parts of an area, in rows and columns; narrow enough for the cache, and one for each thread. */
typedef struct { area whole; int64_t down, across; } grid;

static inline grid divided(area whole, int64_t bytes_of_column, int64_t images, int threads)
{
    int64_t width = whole.right - whole.left, height = whole.bottom - whole.top;
    int64_t across = max(1, parts(width, max(48, CACHE / bytes_of_column)));
    return (grid){whole, max(1, min(parts(threads, images * across), height / 8)), across};
}

static inline area part(grid g, int64_t number)
{
    area a = g.whole;
    int64_t rows = parts(a.bottom - a.top, g.down), columns = parts(a.right - a.left, g.across);
    int64_t top = a.top + number / g.across * rows, left = a.left + number % g.across * columns;
    return (area){top, min(top + rows, a.bottom), left, min(left + columns, a.right)};
}

static inline area widened(area a, int64_t by, int64_t height, int64_t width)
{
    return (area){max(a.top - by, 0), min(a.bottom + by, height), max(a.left - by, 0), min(a.right + by, width)};
}
