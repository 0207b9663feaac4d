/* The selective scan on a CPU: sixteen channels a vector, positions in tiles, states four at a time in registers.
 *
 * Every tensor is read through its own strides, in the order of its direction, a tile at a time into small aligned
 * buffers; so neither layout nor direction costs a copy of a tensor. Plain C with GNU vector extensions (gcc, clang).
 * Never compile with -ffast-math: linking it in would switch the whole process to flush-to-zero.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define TILE 32   /* BLOCK in core.py: states are saved where tiles begin */
#define CHUNK 4   /* states carried through a tile in registers */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

typedef struct { float *data; int64_t batch, length, group, last; } array; /* strides in elements */

typedef struct {
    int64_t batch, length, groups, channels, states, width, shared, softplus; /* shared: all groups read the one u */
    const int64_t *directions;
    const float *rates; /* A log2(e): (groups, states rounded up to CHUNK, channels rounded up to LANES), zero padded */
    const float *bias;  /* of the step sizes: (groups, channels rounded up to LANES) */
    array u, delta, b, c;
} problem;

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* 2^x for x <= 0, to 2e-7: whole part into the exponent, a minimax polynomial for the rest; NaN stays NaN. */
static inline vec exp2v(vec x)
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

/* Raw step sizes -> step sizes, and the slope there. softplus(x) = max(x, 0) + log(1 + e) with e = exp(-|x|), where
 * log(1 + e) = 2 atanh(e / (2 + e)) as a series: exact to the last bits for tiny steps as well. */
static inline void to_steps(vec *d, vec *slope, const problem *q, int64_t g, int64_t c, int n)
{
    vec bias;
    memcpy(&bias, q->bias + g * round_up(q->channels, LANES) + c, sizeof bias);
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

/* Sixteen channels of every position of a tile; lanes beyond the end read zero: decay 1, input 0. */
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

static void *buffer(size_t size) { return aligned_alloc(64, (size_t)round_up((int64_t)size, 64)); }

/* Work is cut into (batch, range of channel vectors): each writes its own channels, nothing is shared but B and C. */
typedef struct { int64_t batch, first, last; } share;

static share share_of(const problem *q, int64_t ranges, int64_t index)
{
    int64_t vectors = round_up(q->channels, LANES) / LANES, r = index % ranges;
    return (share){index / ranges, vectors * r / ranges, vectors * (r + 1) / ranges};
}

/* `initial`: the state before the first position, laid out like `last`; zero if NULL.
 * `results`: whether to fill y, else `sums` of the step sizes, (batch, groups, channels); a constant after inlining. */
static inline __attribute__((always_inline)) int forward_share(const problem *q, share w, int results, array y,
                                                               const float *initial, float *last, float *starts,
                                                               float *sums)
{
    const int64_t padded = round_up(q->states, CHUNK), row = round_up(q->channels, LANES);
    const int64_t vectors = w.last - w.first, state = padded * vectors;
    vec *h = buffer(sizeof(vec) * (size_t)(state + vectors)), *sum = h + state;
    float *bt = buffer(sizeof(float) * (size_t)(2 * padded * TILE)), *ct = bt + padded * TILE;
    int failed = !h || !bt;
    for (int64_t g = 0; g < q->groups && !failed; g++) {
        memset(h, 0, sizeof(vec) * (size_t)(state + vectors));
        for (int64_t v = 0; v < vectors && initial; v++)
            for (int64_t i = 0; i < LANES && (w.first + v) * LANES + i < q->channels; i++)
                for (int64_t s = 0; s < q->states; s++)
                    h[v * padded + s][i] =
                        initial[((w.batch * q->groups + g) * q->channels + (w.first + v) * LANES + i) * q->states + s];
        for (int64_t first = 0; first < q->length; first += TILE) {
            int n = (int)(q->length - first < TILE ? q->length - first : TILE);
            int64_t at[TILE];
            for (int t = 0; t < n; t++) at[t] = place(q, g, first + t);
            gather_states(bt, &q->b, q, w.batch, g, padded, at, n);
            if (results) gather_states(ct, &q->c, q, w.batch, g, padded, at, n);
            for (int64_t v = 0; v < vectors; v++) {
                int64_t c = (w.first + v) * LANES, lanes = q->channels - c < LANES ? q->channels - c : LANES;
                vec d[TILE], du[TILE], out[TILE] = {};
                gather(d, &q->delta, w.batch, g, c, lanes, at, n);
                gather(du, &q->u, w.batch, q->shared ? 0 : g, c, lanes, at, n);
                to_steps(d, NULL, q, g, c, n);
                for (int t = 0; t < n; t++) du[t] *= d[t];
                if (!results) {
                    vec tile = d[0];
                    for (int t = 1; t < n; t++) tile += d[t];
                    sum[v] += tile;
                }
                if (starts) {
                    int64_t block = (first / TILE * q->batch + w.batch) * q->groups + g;
                    float *save = starts + block * q->states * q->channels;
                    for (int64_t s = 0; s < q->states; s++)
                        memcpy(save + s * q->channels + c, &h[v * padded + s], sizeof(float) * (size_t)lanes);
                }
                for (int64_t s = 0; s < padded; s += CHUNK) {
                    vec a[CHUNK], x[CHUNK];
                    for (int k = 0; k < CHUNK; k++) {
                        memcpy(&a[k], q->rates + (g * padded + s + k) * row + c, sizeof(vec));
                        x[k] = h[v * padded + s + k];
                    }
                    for (int t = 0; t < n; t++) {
                        const float *bs = bt + t * padded + s, *cs = ct + t * padded + s;
                        for (int k = 0; k < CHUNK; k++) {
                            x[k] = exp2v(d[t] * a[k]) * x[k] + du[t] * bs[k];
                            if (results) out[t] += x[k] * cs[k];
                        }
                    }
                    for (int k = 0; k < CHUNK; k++) h[v * padded + s + k] = x[k];
                }
                if (results) scatter(&y, out, w.batch, q->shared ? 0 : g, c, lanes, at, n, q->shared && g);
            }
        }
        for (int64_t v = 0; v < vectors && !results; v++) {
            int64_t c = (w.first + v) * LANES, lanes = q->channels - c < LANES ? q->channels - c : LANES;
            memcpy(sums + (w.batch * q->groups + g) * q->channels + c, &sum[v], sizeof(float) * (size_t)lanes);
        }
        for (int64_t v = 0; v < vectors; v++)
            for (int64_t i = 0; i < LANES && (w.first + v) * LANES + i < q->channels; i++)
                for (int64_t s = 0; s < q->states; s++)
                    last[((w.batch * q->groups + g) * q->channels + (w.first + v) * LANES + i) * q->states + s] =
                        h[v * padded + s][i];
    }
    free(h);
    free(bt);
    return failed;
}

int scan_forward(const problem *q, array y, const float *initial, float *last, float *starts, int64_t ranges,
                 int threads)
{
    int failed = 0;
#pragma omp parallel for num_threads(threads) reduction(| : failed) schedule(dynamic)
    for (int64_t i = 0; i < q->batch * ranges; i++)
        failed |= forward_share(q, share_of(q, ranges, i), 1, y, initial, last, starts, NULL);
    return failed;
}

/* The last state and the sums of step sizes, without results. */
int scan_ends(const problem *q, const float *initial, float *last, float *sums, int64_t ranges, int threads)
{
    int failed = 0;
#pragma omp parallel for num_threads(threads) reduction(| : failed) schedule(dynamic)
    for (int64_t i = 0; i < q->batch * ranges; i++)
        failed |= forward_share(q, share_of(q, ranges, i), 0, (array){}, initial, last, NULL, sums);
    return failed;
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
    const int64_t padded = round_up(q->states, CHUNK), row = round_up(q->channels, LANES);
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
            for (int64_t i = 0; i < LANES && (w.first + v) * LANES + i < q->channels; i++)
                for (int64_t s = 0; s < q->states; s++)
                    carry[v * padded + s][i] =
                        dlast[((w.batch * q->groups + g) * q->channels + (w.first + v) * LANES + i) * q->states + s];
        for (int64_t first = (q->length - 1) / TILE * TILE; first >= 0; first -= TILE) {
            int n = (int)(q->length - first < TILE ? q->length - first : TILE);
            int64_t at[TILE];
            for (int t = 0; t < n; t++) at[t] = place(q, g, first + t);
            gather_states(bt, &q->b, q, w.batch, g, padded, at, n);
            gather_states(ct, &q->c, q, w.batch, g, padded, at, n);
            for (int64_t v = 0; v < vectors; v++) {
                int64_t c = (w.first + v) * LANES, lanes = q->channels - c < LANES ? q->channels - c : LANES;
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
                    int64_t c = (w.first + v) * LANES, lanes = q->channels - c < LANES ? q->channels - c : LANES;
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
                int64_t c = (w.first + v) * LANES, lanes = q->channels - c < LANES ? q->channels - c : LANES;
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
        failed |= backward_share(q, share_of(q, ranges, i), dy, du, ddelta, dlast, starts, db + i % ranges * part,
                                 dc + i % ranges * part, da);
    return failed;
}
