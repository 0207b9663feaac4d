/* The selective scan on a CPU: as many channels at a time as a register holds, positions in tiles, states four at a time.
 *
 * Every tensor is read through its own strides, in the order of its direction, a tile at a time into small aligned
 * buffers; so neither layout nor direction costs a copy of a tensor. Plain C with GNU vector extensions (gcc, clang).
 * Never compile with -ffast-math: linking it in would switch the whole process to flush-to-zero.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define PADDED 16 /* LANES in cpu.py: of weights, channels rounded up to them are in memory */
#define TILE 32   /* BLOCK in core.py: states are saved where tiles begin */
#define CHUNK 4   /* states carried through a tile in registers */
#ifdef __AVX512F__
#define LANES 16  /* of a register: compilers are slow at vectors of several */
#define ACROSS 3  /* registers of columns, and positions, that are projected at a time: their sums fill the registers */
#define ROWS 8
#else
#define LANES 8
#define ACROSS 2
#define ROWS 4
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

typedef struct { float *data; int64_t batch, length, group, last; } array; /* strides in elements */

typedef struct {
    int64_t batch, length, groups, channels, states, width, shared, softplus; /* shared: all groups read the one u */
    const int64_t *directions;
    const float *rates; /* A log2(e): (groups, states rounded up to CHUNK, channels rounded up to PADDED), zero beyond */
    const float *bias;  /* of the step sizes: (groups, channels rounded up to PADDED) */
    array u, delta, b, c;
    /* In place of delta, b and c, what they are computed from; else NULL. B, low-rank step sizes and C of a position are
     * its channels times x_proj, (groups, channels, columns), with B and C as many as there are rates; its step sizes
     * are the low-rank ones times dt_proj, (groups, rank, channels rounded up to PADDED). */
    int64_t rank, columns;
    const float *x_proj, *dt_proj;
} problem;

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* 2^x for x <= 0, to 2e-7; NaN stays NaN. `exp2_once` is as exact, but 1 - 2^x only to 2e-5 where x is near 0, which
 * would add up in the product of many decays. */
#ifdef __AVX512F__
static inline __attribute__((always_inline)) vec exp2_by_table(vec x, int once) /* whole 32nds, a series for the rest */
{
    static const float table[32] __attribute__((aligned(64))) = {
        1.0f, 1.02189715f, 1.04427378f, 1.0671404f, 1.09050773f, 1.11438674f, 1.13878863f, 1.16372486f,
        1.18920712f, 1.21524736f, 1.24185781f, 1.26905096f, 1.29683955f, 1.32523664f, 1.35425555f, 1.38390988f,
        1.41421356f, 1.44518081f, 1.47682615f, 1.50916443f, 1.54221083f, 1.57598085f, 1.61049033f, 1.64575548f,
        1.68179283f, 1.7186193f, 1.75625216f, 1.79470908f, 1.83400809f, 1.87416763f, 1.91520656f, 1.95714412f
    };
    const __m512 magic = _mm512_set1_ps(393216.0f); /* 1.5 * 2^18: rounds to whole 32nds */
    __m512 z = _mm512_max_ps(_mm512_set1_ps(-126.0f), (__m512)x);
    __m512 shifted = z + magic, whole = shifted - magic, f = z - whole;
    __m512 power = _mm512_permutex2var_ps(_mm512_load_ps(table), (__m512i)shifted, _mm512_load_ps(table + 16));
    __m512 p = ((f * 5.55041087e-2f + 2.40226507e-1f) * f + 6.93147181e-1f) * f; /* 2^f - 1, exact near 0 */
    if (once) p = (f * 2.40226507e-1f + 6.93157342e-1f) * f; /* the best parabola through 0 */
    return (vec)_mm512_scalef_ps(power * p + power, whole);
}
static inline vec exp2v(vec x) { return exp2_by_table(x, 0); }
static inline vec exp2_once(vec x) { return exp2_by_table(x, 1); }
#else
static inline vec exp2v(vec x) /* whole part into the exponent, a minimax polynomial for the rest */
{
    ivec low = x < -126.0f;
    x = (vec)((low & (ivec)((vec){} - 126.0f)) | (~low & (ivec)x));
    vec shifted = x + 12582912.0f; /* 1.5 * 2^23: rounds to whole numbers */
    vec f = x - (shifted - 12582912.0f);
    vec p = f * 1.326472712e-3f + 9.671512645e-3f;
    p = p * f + 5.550733743e-2f;
    p = p * f + 2.402224209e-1f;
    p = p * f + 6.931469776e-1f;
    p = p * f + 1.0f;
    return (vec)((ivec)p + ((ivec)shifted << 23));
}
static inline vec exp2_once(vec x) { return exp2v(x); }
#endif

/* Raw step sizes -> step sizes, and the slope there. softplus(x) = max(x, 0) + log(1 + e) with e = exp(-|x|), where
 * log(1 + e) = 2 atanh(e / (2 + e)) as a series: exact to the last bits for tiny steps as well. */
static inline void to_steps(vec *d, vec *slope, const problem *q, int64_t g, int64_t c, int n)
{
    vec bias;
    memcpy(&bias, q->bias + g * round_up(q->channels, PADDED) + c, sizeof bias);
    for (int t = 0; t < n; t++) {
        vec x = d[t] + bias;
        ivec negative = x < 0.0f;
        vec e = exp2v((vec)((ivec)x | INT32_MIN) * 1.44269504f); /* with the sign bit set: -|x| */
        vec s = e / (e + 2.0f), z = s * s;
        vec series = z * (1.0f / 13) + 1.0f / 11;
        series = series * z + 1.0f / 9;
        series = series * z + 1.0f / 7;
        series = series * z + 1.0f / 5;
        series = series * z + 1.0f / 3;
        series = series * z + 1.0f;
        vec one = (vec){} + 1.0f;
        vec sigmoid = (vec)((negative & (ivec)e) | (~negative & (ivec)one)) / (e + 1.0f);
        if (slope) slope[t] = q->softplus ? sigmoid : one;
        d[t] = q->softplus ? (vec)(~negative & (ivec)x) + 2.0f * s * series : x;
    }
}

static int64_t place(const problem *q, int64_t group, int64_t step)
{
    int64_t direction = q->directions[group];
    if (direction >= 2) step = q->length - 1 - step;
    if (direction & 1) {
        int64_t height = q->length / q->width;
        step = step % height * q->width + step / height;
    }
    return step;
}

/* A vector of channels of every position of a tile; lanes beyond the end read zero: decay 1, input 0. */
static void gather(vec *out, const array *from, int64_t b, int64_t g, int64_t c, int64_t lanes, const int64_t *at,
                   int n)
{
    const float *base = from->data + b * from->batch + g * from->group + c * from->last;
    if (lanes == LANES && from->last == 1) {
        for (int t = 0; t < n; t++) memcpy(&out[t], base + at[t] * from->length, sizeof(vec));
        return;
    }
    float *to = (float *)out;
    memset(to, 0, sizeof(vec) * (size_t)n);
    for (int64_t i = 0; i < lanes; i++) /* positions inside: in the other usual layout they are the neighbours */
        for (int t = 0; t < n; t++) to[t * LANES + i] = base[at[t] * from->length + i * from->last];
}

static void scatter(const array *to, const vec *in, int64_t b, int64_t g, int64_t c, int64_t lanes, const int64_t *at,
                    int n, int add)
{
    float *base = to->data + b * to->batch + g * to->group + c * to->last;
    const float *from = (const float *)in;
    if (lanes == LANES && to->last == 1) {
        for (int t = 0; t < n; t++) {
            vec v = {};
            if (add) memcpy(&v, base + at[t] * to->length, sizeof v);
            v += in[t];
            memcpy(base + at[t] * to->length, &v, sizeof v);
        }
        return;
    }
    for (int64_t i = 0; i < lanes; i++)
        for (int t = 0; t < n; t++) {
            float *p = base + at[t] * to->length + i * to->last;
            *p = from[t * LANES + i] + (add ? *p : 0.0f);
        }
}

/* B or C of a tile, rows of `padded` states. */
static void gather_states(float *out, const array *from, const problem *q, int64_t b, int64_t g, int64_t padded,
                          const int64_t *at, int n)
{
    const float *base = from->data + b * from->batch + g * from->group;
    memset(out, 0, sizeof(float) * (size_t)(padded * n));
    for (int64_t s = 0; s < q->states; s++)
        for (int t = 0; t < n; t++) out[t * padded + s] = base[at[t] * from->length + s * from->last];
}

/* Some columns of x_proj, a few registers wide, for a tile of all channels as `gather` writes it. */
static inline __attribute__((always_inline)) void project_columns(float *out, const vec *u, const float *x_proj,
                                                                  const problem *q, int n, int registers)
{
    for (int first = 0; first < n; first += ROWS) {
        vec sums[ROWS][ACROSS] = {};
        for (int64_t c = 0; c < q->channels; c++) {
            const float *from = (const float *)&u[c / LANES * TILE + first] + c % LANES;
            vec weights[ACROSS];
            for (int k = 0; k < registers; k++) memcpy(&weights[k], x_proj + c * q->columns + k * LANES, sizeof(vec));
            for (int t = 0; t < ROWS; t++)
                for (int k = 0; k < registers; k++) sums[t][k] += from[t * LANES] * weights[k];
        }
        for (int t = 0; t < ROWS; t++)
            for (int k = 0; k < registers; k++)
                memcpy(out + (first + t) * q->columns + k * LANES, &sums[t][k], sizeof(vec));
    }
}

/* The first `columns` of x_proj, rounded up to LANES, for the first n positions, rounded up to ROWS. */
static void project(float *out, const vec *u, const problem *q, int64_t g, int64_t columns, int n)
{
    const float *x_proj = q->x_proj + g * q->channels * q->columns;
    int64_t at = 0;
    for (; columns - at > (ACROSS - 1) * LANES; at += ACROSS * LANES)
        project_columns(out + at, u, x_proj + at, q, n, ACROSS);
    if (columns - at > LANES) project_columns(out + at, u, x_proj + at, q, n, 2);
    else if (columns > at) project_columns(out + at, u, x_proj + at, q, n, 1);
}

static void *buffer(size_t size) { return aligned_alloc(64, (size_t)round_up((int64_t)size, 64)); }

/* Work is cut into (batch, some groups, range of channel vectors): each writes its own channels; B and C are shared. */
typedef struct { int64_t batch, group, groups, first, last; } share; /* groups and vectors: up to, without the last */

static share share_of(const problem *q, int64_t parts, int64_t ranges, int64_t index)
{
    int64_t vectors = round_up(q->channels, LANES) / LANES, r = index % ranges, p = index / ranges % parts;
    return (share){index / ranges / parts, q->groups * p / parts, q->groups * (p + 1) / parts, vectors * r / ranges,
                   vectors * (r + 1) / ranges};
}

/* A vector of channels of a state in memory, (batch, groups, states, channels). */
static int64_t state_at(const problem *q, int64_t b, int64_t g, int64_t s, int64_t c)
{
    return ((b * q->groups + g) * q->states + s) * q->channels + c;
}

static int64_t lanes_at(const problem *q, int64_t c) { return q->channels - c < LANES ? q->channels - c : LANES; }

/* The first lanes of a vector, most often all: then with no call of a function. */
static inline void read_lanes(vec *to, const float *from, int64_t lanes)
{
    if (lanes == LANES) memcpy(to, from, sizeof(vec));
    else memcpy(to, from, sizeof(float) * (size_t)lanes);
}

static inline void write_lanes(float *to, const vec *from, int64_t lanes)
{
    if (lanes == LANES) memcpy(to, from, sizeof(vec));
    else memcpy(to, from, sizeof(float) * (size_t)lanes);
}

/* Step sizes from the low-rank ones of a tile, in rows of `pitch`. */
static void steps_of(vec *d, const float *low, int64_t pitch, const problem *q, int64_t g, int64_t c, int n)
{
    const int64_t row = round_up(q->channels, PADDED);
    memset(d, 0, sizeof(vec) * TILE);
    for (int64_t r = 0; r < q->rank; r++) {
        vec weights;
        memcpy(&weights, q->dt_proj + (g * q->rank + r) * row + c, sizeof weights);
        for (int t = 0; t < n; t++) d[t] += low[t * pitch + r] * weights;
    }
    to_steps(d, NULL, q, g, c, n);
}

/* `initial`: the state before the first position; zero if NULL. With projections, results are added to y. */
static int forward_share(const problem *q, share w, array y, const float *initial, float *last, float *starts)
{
    const int64_t padded = round_up(q->states, CHUNK), row = round_up(q->channels, PADDED);
    const int64_t vectors = w.last - w.first, state = padded * vectors;
    const int64_t pitch = q->x_proj ? q->columns : padded, all = q->x_proj ? row : 0;
    vec *h = buffer(sizeof(vec) * (size_t)state);
    float *bt = buffer(sizeof(float) * (size_t)(2 * pitch * TILE)), *low = bt + padded;
    float *ct = q->x_proj ? low + q->rank : bt + padded * TILE;
    vec *u = buffer(sizeof(float) * (size_t)((all + LANES) * TILE));
    int failed = !h || !bt || !u;
    if (u) memset(u, 0, sizeof(float) * (size_t)((all + LANES) * TILE));
    for (int64_t g = w.group; g < w.groups && !failed; g++) {
        memset(h, 0, sizeof(vec) * (size_t)state);
        for (int64_t v = 0; v < vectors && initial; v++)
            for (int64_t s = 0, c = (w.first + v) * LANES; s < q->states; s++)
                read_lanes(&h[v * padded + s], initial + state_at(q, w.batch, g, s, c), lanes_at(q, c));
        for (int64_t first = 0; first < q->length; first += TILE) {
            int n = (int)(q->length - first < TILE ? q->length - first : TILE);
            int64_t at[TILE], source = q->shared ? 0 : g;
            for (int t = 0; t < n; t++) at[t] = place(q, g, first + t);
            if (q->x_proj) {
                for (int64_t c = 0; c < row; c += LANES)
                    gather(u + c / LANES * TILE, &q->u, w.batch, source, c, lanes_at(q, c), at, n);
                project(bt, u, q, g, q->columns, n);
            } else {
                gather_states(bt, &q->b, q, w.batch, g, padded, at, n);
                gather_states(ct, &q->c, q, w.batch, g, padded, at, n);
            }
            for (int64_t v = 0; v < vectors; v++) {
                int64_t c = (w.first + v) * LANES, lanes = lanes_at(q, c);
                vec d[TILE], du[TILE], out[TILE] = {};
                if (q->x_proj) {
                    steps_of(d, low, pitch, q, g, c, n);
                    memcpy(du, u + (w.first + v) * TILE, sizeof du);
                } else {
                    gather(d, &q->delta, w.batch, g, c, lanes, at, n);
                    gather(du, &q->u, w.batch, source, c, lanes, at, n);
                    to_steps(d, NULL, q, g, c, n);
                }
                for (int t = 0; t < n; t++) du[t] *= d[t];
                if (starts) {
                    int64_t block = (first / TILE * q->batch + w.batch) * q->groups + g;
                    float *save = starts + block * q->states * q->channels;
                    for (int64_t s = 0; s < q->states; s++)
                        write_lanes(save + s * q->channels + c, &h[v * padded + s], lanes);
                }
                for (int64_t s = 0; s < padded; s += CHUNK) {
                    vec a[CHUNK], x[CHUNK];
                    for (int k = 0; k < CHUNK; k++) {
                        memcpy(&a[k], q->rates + (g * padded + s + k) * row + c, sizeof(vec));
                        x[k] = h[v * padded + s + k];
                    }
                    for (int t = 0; t < n; t++) {
                        const float *bs = bt + t * pitch + s, *cs = ct + t * pitch + s;
                        for (int k = 0; k < CHUNK; k++) {
                            x[k] = exp2v(d[t] * a[k]) * x[k] + du[t] * bs[k];
                            out[t] += x[k] * cs[k];
                        }
                    }
                    for (int k = 0; k < CHUNK; k++) h[v * padded + s + k] = x[k];
                }
                int add = q->x_proj || (q->shared && g);
                scatter(&y, out, w.batch, source, c, lanes, at, n, add);
            }
        }
        for (int64_t v = 0; v < vectors; v++) {
            int64_t c = (w.first + v) * LANES;
            for (int64_t s = 0; s < q->states; s++)
                write_lanes(last + state_at(q, w.batch, g, s, c), &h[v * padded + s], lanes_at(q, c));
        }
    }
    free(h);
    free(bt);
    free(u);
    return failed;
}

/* `part`: from one y to the next. Shares with other groups add to another y. */
int scan_forward(const problem *q, array y, int64_t part, const float *initial, float *last, float *starts,
                 int64_t parts, int64_t ranges, int threads)
{
    int failed = 0;
#pragma omp parallel for num_threads(threads) reduction(| : failed) schedule(dynamic)
    for (int64_t i = 0; i < q->batch * parts * ranges; i++) {
        share w = share_of(q, parts, ranges, i);
        array own = y;
        own.data += i / ranges % parts * part;
        failed |= forward_share(q, w, own, initial, last, starts);
    }
    return failed;
}

static int any_at_least(vec v, float least)
{
#ifdef __AVX512F__
    return _mm512_cmp_ps_mask((__m512)v, _mm512_set1_ps(least), _CMP_NLT_UQ) != 0;
#else
    int found = 0;
    for (int i = 0; i < LANES; i++) found |= !(v[i] < least);
    return found;
#endif
}

/* See `scan_ends`. A state at the end of a line is a sum over its positions: what each adds, times its decay from there
 * to the end. Walked from the end, with the sum of step sizes up to it, each is known by itself, and as soon as the decay
 * is below 2^least, neither this position nor any before it is needed. */
static int ends_share(const problem *q, share w, float *state, float *sums, float least)
{
    const int64_t padded = round_up(q->states, CHUNK), row = round_up(q->channels, PADDED);
    const int64_t vectors = w.last - w.first, pitch = q->columns;
    vec *h = buffer(sizeof(vec) * (size_t)(padded * vectors));
    vec *u = buffer(sizeof(float) * (size_t)((row + LANES) * TILE)), *sum = buffer(sizeof(vec) * (size_t)vectors);
    float *bt = buffer(sizeof(float) * (size_t)(pitch * TILE));
    int failed = !h || !u || !sum || !bt;
    if (u) memset(u, 0, sizeof(float) * (size_t)((row + LANES) * TILE));
    for (int64_t g = 0; g < q->groups && !failed; g++) {
        float *to = sums + (w.batch * q->groups + g) * q->channels + w.first * LANES;
        memset(h, 0, sizeof(vec) * (size_t)(padded * vectors));
        memset(sum, 0, sizeof(vec) * (size_t)vectors);
        for (int64_t v = 0; v < vectors; v++)
            read_lanes(&sum[v], to + v * LANES, lanes_at(q, (w.first + v) * LANES));
        int needed = 1;
        for (int64_t first = (q->length - 1) / TILE * TILE; first >= 0 && needed; first -= TILE) {
            int n = (int)(q->length - first < TILE ? q->length - first : TILE), projected = 0;
            int64_t at[TILE], source = q->shared ? 0 : g;
            for (int t = 0; t < n; t++) at[t] = place(q, g, first + t);
            needed = 0;
            for (int64_t v = 0; v < vectors; v++) {
                const int64_t c = (w.first + v) * LANES;
                const float *rates = q->rates + g * padded * row + c;
                vec d[TILE], du[TILE], before = sum[v], tile = {};
                int known = 0;
                for (int64_t s = 0; s < padded; s += CHUNK) {
                    vec a[CHUNK], x[CHUNK], slowest = (vec){} - 1e30f;
                    for (int k = 0; k < CHUNK; k++) {
                        memcpy(&a[k], rates + (s + k) * row, sizeof(vec));
                        x[k] = h[v * padded + s + k];
                        ivec less = a[k] < slowest;
                        if (s + k < q->states) slowest = (vec)((less & (ivec)slowest) | (~less & (ivec)a[k]));
                    }
                    for (int64_t i = lanes_at(q, c); i < LANES; i++) slowest[i] = -1e30f;
                    if (!any_at_least(slowest * before, least)) continue;
                    if (!projected) {
                        for (int64_t from = 0; from < row; from += LANES)
                            gather(u + from / LANES * TILE, &q->u, w.batch, source, from, lanes_at(q, from), at, n);
                        project(bt, u, q, g, padded + q->rank, n);
                    }
                    if (!known) {
                        steps_of(d, bt + padded, pitch, q, g, c, n);
                        for (int t = n - 1; t >= 0; t--) {
                            vec step = d[t];
                            du[t] = u[(w.first + v) * TILE + t] * step;
                            d[t] = before + tile; /* from here to the end */
                            tile += step;
                        }
                        sum[v] += tile;
                    }
                    needed = projected = known = 1;
                    for (int t = 0; t < n; t++)
                        for (int k = 0; k < CHUNK; k++)
                            x[k] += exp2_once(d[t] * a[k]) * (du[t] * bt[t * pitch + s + k]);
                    for (int k = 0; k < CHUNK; k++) h[v * padded + s + k] = x[k];
                }
            }
        }
        for (int64_t v = 0; v < vectors; v++) {
            const int64_t c = (w.first + v) * LANES, lanes = lanes_at(q, c);
            write_lanes(to + v * LANES, &sum[v], lanes);
            for (int64_t s = 0; s < q->states; s++) {
                float *after = state + state_at(q, w.batch, g, s, c);
                vec rate, x = {};
                memcpy(&rate, q->rates + (g * padded + s) * row + c, sizeof rate);
                read_lanes(&x, after, lanes);
                x = x * exp2_once(rate * sum[v]) + h[v * padded + s];
                write_lanes(after, &x, lanes);
            }
        }
    }
    free(h);
    free(u);
    free(sum);
    free(bt);
    return failed;
}

/* States after lines, without results, and `sums` of step sizes, (batch, groups, channels). The states are those so many
 * steps after the lines as the sums say; those of the lines are added. Decays below 2^least count as zero, and step sizes
 * before them may be missing in the sums. With projections. */
int scan_ends(const problem *q, float *state, float *sums, float least, int64_t ranges, int threads)
{
    int failed = 0;
#pragma omp parallel for num_threads(threads) reduction(| : failed) schedule(dynamic)
    for (int64_t i = 0; i < q->batch * ranges; i++)
        failed |= ends_share(q, share_of(q, 1, ranges, i), state, sums, least);
    return failed;
}

/* `scan_carry` for some channels of a line, so many bytes of them. */
static inline __attribute__((always_inline)) void carry_lanes(const float *rates, const float *steps, float *state,
                                                              float *own, int64_t states, int64_t channels, int swap,
                                                              size_t size)
{
    vec step = {}, rate = {}, before = {}, value = {};
    memcpy(&step, steps, size);
    step *= 1.44269504f; /* to powers of 2 */
    for (int64_t at = 0; at < states * channels; at += channels) {
        memcpy(&rate, rates + at, size);
        memcpy(&before, state + at, size);
        memcpy(&value, own + at, size);
        value += exp2v(rate * step) * before;
        if (swap) memcpy(state + at, &value, size), value = before;
        memcpy(own + at, &value, size);
    }
}

/* own = decay * state + own, with the decay of so many steps; with `swap`, the result goes to the state, and the state
 * to own. Both are (lines, states, channels), steps (lines, channels), rates (states, channels). */
void scan_carry(const float *rates, const float *steps, float *state, float *own, int64_t lines, int64_t states,
                int64_t channels, int swap, int threads)
{
#pragma omp parallel for num_threads(threads)
    for (int64_t line = 0; line < lines; line++)
        for (int64_t c = 0; c < channels; c += LANES) {
            int64_t at = line * states * channels + c, left = channels - c;
            const float *own_steps = steps + line * channels + c;
            if (left >= LANES)
                carry_lanes(rates + c, own_steps, state + at, own + at, states, channels, swap, sizeof(vec));
            else
                carry_lanes(rates + c, own_steps, state + at, own + at, states, channels, swap,
                            sizeof(float) * (size_t)left);
        }
}

static inline float sum_lanes(vec v)
{
    float sum = 0.0f;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

/* Walks the tiles from the end: recomputes the states of a tile, then runs the adjoint recurrence through it.
 * db, dc: this range's part, (batch, length, groups, states); da: this batch's part, laid out like the rates. */
static int backward_share(const problem *q, share w, array dy, array du, array ddelta, const float *dlast,
                          const float *starts, float *db, float *dc, float *da)
{
    const int64_t padded = round_up(q->states, CHUNK), row = round_up(q->channels, PADDED);
    const int64_t vectors = w.last - w.first, state = padded * vectors;
    vec *carry = buffer(sizeof(vec) * (size_t)(2 * state)), *dav = carry + state;
    vec *tile = buffer(sizeof(vec) * (size_t)(6 * vectors * TILE));
    float *bt = buffer(sizeof(float) * (size_t)(2 * padded * TILE)), *ct = bt + padded * TILE;
    int failed = !carry || !tile || !bt;
    vec *d = tile, *u = d + vectors * TILE, *up = u + vectors * TILE;
    vec *slope = up + vectors * TILE, *input = slope + vectors * TILE;
    vec *decay = input + vectors * TILE; /* sums over states: of gradient * B, and of the gradient of the exponent */
    for (int64_t g = 0; g < q->groups && !failed; g++) {
        memset(carry, 0, sizeof(vec) * (size_t)(2 * state));
        for (int64_t v = 0; v < vectors; v++)
            for (int64_t s = 0, c = (w.first + v) * LANES; s < q->states; s++)
                memcpy(&carry[v * padded + s], dlast + state_at(q, w.batch, g, s, c),
                       sizeof(float) * (size_t)lanes_at(q, c));
        for (int64_t first = (q->length - 1) / TILE * TILE; first >= 0; first -= TILE) {
            int n = (int)(q->length - first < TILE ? q->length - first : TILE);
            int64_t at[TILE];
            for (int t = 0; t < n; t++) at[t] = place(q, g, first + t);
            gather_states(bt, &q->b, q, w.batch, g, padded, at, n);
            gather_states(ct, &q->c, q, w.batch, g, padded, at, n);
            for (int64_t v = 0; v < vectors; v++) {
                int64_t c = (w.first + v) * LANES, lanes = lanes_at(q, c);
                gather(d + v * TILE, &q->delta, w.batch, g, c, lanes, at, n);
                to_steps(d + v * TILE, slope + v * TILE, q, g, c, n);
                gather(u + v * TILE, &q->u, w.batch, q->shared ? 0 : g, c, lanes, at, n);
                gather(up + v * TILE, &dy, w.batch, q->shared ? 0 : g, c, lanes, at, n);
            }
            memset(input, 0, sizeof(vec) * (size_t)(2 * vectors * TILE));
            int64_t block = (first / TILE * q->batch + w.batch) * q->groups + g;
            const float *saved = starts + block * q->states * q->channels;
            for (int64_t s = 0; s < padded; s += CHUNK) {
                vec dbv[TILE][CHUNK] = {}, dcv[TILE][CHUNK] = {};
                for (int64_t v = 0; v < vectors; v++) {
                    int64_t c = (w.first + v) * LANES, lanes = lanes_at(q, c);
                    const vec *dv = d + v * TILE, *uv = u + v * TILE, *upv = up + v * TILE;
                    vec a[CHUNK], x[CHUNK], decays[TILE][CHUNK], states[TILE + 1][CHUNK];
                    for (int k = 0; k < CHUNK; k++) {
                        memcpy(&a[k], q->rates + (g * padded + s + k) * row + c, sizeof(vec));
                        x[k] = (vec){};
                        const float *from = saved + (s + k) * q->channels + c;
                        if (s + k < q->states) memcpy(&x[k], from, sizeof(float) * (size_t)lanes);
                        states[0][k] = x[k];
                    }
                    for (int t = 0; t < n; t++)
                        for (int k = 0; k < CHUNK; k++) {
                            decays[t][k] = exp2v(dv[t] * a[k]);
                            states[t + 1][k] = x[k] = decays[t][k] * x[k] + dv[t] * uv[t] * bt[t * padded + s + k];
                        }
                    vec grad[CHUNK], rate[CHUNK];
                    for (int k = 0; k < CHUNK; k++) {
                        grad[k] = carry[v * padded + s + k];
                        rate[k] = dav[v * padded + s + k];
                    }
                    for (int t = n - 1; t >= 0; t--) {
                        vec sum = input[v * TILE + t], exponent = decay[v * TILE + t], step = dv[t] * uv[t];
                        for (int k = 0; k < CHUNK; k++) {
                            grad[k] += upv[t] * ct[t * padded + s + k];
                            dcv[t][k] += upv[t] * states[t + 1][k];
                            dbv[t][k] += grad[k] * step;
                            sum += grad[k] * bt[t * padded + s + k];
                            grad[k] *= decays[t][k];
                            vec e = grad[k] * states[t][k]; /* a product: h - x would cancel */
                            exponent += e * a[k];
                            rate[k] += e * dv[t];
                        }
                        input[v * TILE + t] = sum;
                        decay[v * TILE + t] = exponent;
                    }
                    for (int k = 0; k < CHUNK; k++) {
                        carry[v * padded + s + k] = grad[k];
                        dav[v * padded + s + k] = rate[k];
                    }
                }
                for (int t = 0; t < n; t++)
                    for (int k = 0; k < CHUNK && s + k < q->states; k++) {
                        int64_t to = ((w.batch * q->length + at[t]) * q->groups + g) * q->states + s + k;
                        db[to] = sum_lanes(dbv[t][k]);
                        dc[to] = sum_lanes(dcv[t][k]);
                    }
            }
            for (int64_t v = 0; v < vectors; v++) {
                int64_t c = (w.first + v) * LANES, lanes = lanes_at(q, c);
                vec *sum = input + v * TILE, *exponent = decay + v * TILE;
                for (int t = 0; t < n; t++) {
                    exponent[t] = u[v * TILE + t] * sum[t] + exponent[t] * 0.69314718f; /* rates are A log2(e) */
                    exponent[t] *= slope[v * TILE + t];
                    sum[t] *= d[v * TILE + t];
                }
                scatter(&ddelta, exponent, w.batch, g, c, lanes, at, n, 0);
                scatter(&du, sum, w.batch, q->shared ? 0 : g, c, lanes, at, n, q->shared && g);
            }
        }
        for (int64_t v = 0; v < vectors; v++)
            for (int64_t s = 0; s < padded; s++)
                memcpy(da + ((w.batch * q->groups + g) * padded + s) * row + (w.first + v) * LANES,
                       &dav[v * padded + s], sizeof(vec));
    }
    free(carry);
    free(tile);
    free(bt);
    return failed;
}

int scan_backward(const problem *q, array dy, array du, array ddelta, const float *dlast, const float *starts,
                  float *db, float *dc, float *da, int64_t ranges, int threads)
{
    const int64_t part = q->batch * q->length * q->groups * q->states;
    int failed = 0;
#pragma omp parallel for num_threads(threads) reduction(| : failed) schedule(dynamic)
    for (int64_t i = 0; i < q->batch * ranges; i++)
        failed |= backward_share(q, share_of(q, 1, ranges, i), dy, du, ddelta, dlast, starts, db + i % ranges * part,
                                 dc + i % ranges * part, da);
    return failed;
}
