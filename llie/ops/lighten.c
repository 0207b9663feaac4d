/* Lighten cross-attention and the gated layer after it, row by row, on a CPU; see lighten.py for the steps.
 *
 * Beyond the edges of maps are zeros. A step needs three rows of the step before, which are kept; so all values stay in the
 * cache.
 */
#include <math.h>

#include "mixing.h"

/* form: of the products of 1x1 convolutions; eps: of the normalisation. */
typedef struct { int64_t height, width, channels, heads, hidden, form; double eps; } shape;

/* ---- layers ---- */

INLINE float total(vec v)
{
    quad q[LANES / 4], sum = {};
    memcpy(q, &v, sizeof(v));
    for (int i = 0; i < LANES / 4; i++)
        sum += q[i];
    return sum[0] + sum[1] + (sum[2] + sum[3]);
}

#define TOGETHER 4 /* pixels; rows have room for whole blocks of them */

_Static_assert(BLOCK % TOGETHER == 0, "or else there is no room");

/* Layer normalisation over the channels of each pixel. `norm`: weight, bias, and 1 where a channel exists. */
static void normalise(row from, const vec *norm, shape s, int64_t width, row to)
{
    const vec *weight = norm, *bias = norm + from.vectors, *exists = norm + 2 * from.vectors;
    for (int64_t x = 0; x < width; x += TOGETHER) { /* or each sum would wait for the one before */
        vec sum[TOGETHER] = {}, squares[TOGETHER] = {};
        float mean[TOGETHER], scale[TOGETHER];
        for (int64_t v = 0; v < from.vectors; v++)
            for (int i = 0; i < TOGETHER; i++)
                sum[i] += from.first[v * from.step + x + i];
        for (int i = 0; i < TOGETHER; i++)
            mean[i] = total(sum[i]) / s.channels;
        for (int64_t v = 0; v < from.vectors; v++)
            for (int i = 0; i < TOGETHER; i++) {
                vec apart = (from.first[v * from.step + x + i] - mean[i]) * exists[v];
                squares[i] += apart * apart;
            }
        for (int i = 0; i < TOGETHER; i++)
            scale[i] = 1 / sqrtf(total(squares[i]) / s.channels + (float)s.eps);
        for (int64_t v = 0; v < from.vectors; v++)
            for (int i = 0; i < TOGETHER; i++)
                to.first[v * to.step + x + i] =
                    (from.first[v * from.step + x + i] - mean[i]) * (scale[i] * weight[v]) + bias[v];
    }
}

#if LANES == 16
#define ACROSS 8 /* pixels at a time: their sums and the weights are in registers */
#else
#define ACROSS 4
#endif

/* A depthwise 3x3 convolution of one vector of channels; `weight` is (9, lanes). */
static void depthwise(const window *from, int64_t y, int64_t v, const vec *weight, int64_t width, vec *to)
{
    const vec *above = at(from, y - 1).first, *here = at(from, y).first, *below = at(from, y + 1).first;
    int64_t first = v * from->rows[0].step;
    const vec *rows[3] = {above + first - 1, here + first - 1, below + first - 1};
    int64_t x = 0;
    for (; x + ACROSS <= width; x += ACROSS) {
        vec sums[ACROSS] = {};
        for (int i = 0; i < 3; i++)
#pragma GCC unroll 10
            for (int j = 0; j < ACROSS + 2; j++) {
                vec value = rows[i][x + j];
#pragma GCC unroll 8
                for (int k = 0; k < ACROSS; k++)
                    if (j - k >= 0 && j - k < 3)
                        sums[k] += value * weight[3 * i + j - k];
            }
#pragma GCC unroll 8
        for (int k = 0; k < ACROSS; k++) /* compilers would copy all of them by way of other registers */
            to[x + k] = sums[k];
    }
    for (; x < width; x++) {
        vec sum = {};
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 3; j++)
                sum += rows[i][x + j] * weight[3 * i + j];
        to[x] = sum;
    }
}

static void depthwise_row(const window *from, int64_t y, const vec *weight, int64_t width, row to)
{
    for (int64_t v = 0; v < to.vectors; v++)
        depthwise(from, y, v, weight + 9 * v, width, to.first + v * to.step);
}

/* exp(2 x) + 1, to 1e-7 of it; of x between -10 and 10. exp(2 x) = 2^n exp(2 r), and of r in [-ln(2) / 4, ln(2) / 4] a
 * polynomial.
 */
INLINE vec double_exponential_and_one(vec x)
{
    const float big = 0x1.8p23f; /* with it added, a number has no fraction, and its last bits are the integer */
    x = between_limits(x, 10);
    vec shifted = x * 2.885390082f + big, n = shifted - big;
    vec r = x - n * 0x1.62e4p-2f - n * 7.143034101e-07f; /* the two numbers are ln(2) / 2 */
    vec e = 1 + r * (2 + r * (1.99999974f + r * (1.3333216f + r * (0.666694333f + r * (0.267801494f + r * 0.0884123745f)))));
    return (vec)((ints)e + ((ints)shifted << 23)) + 1;
}

/* (tanh(a) + b) (tanh(c) + d), where tanh(x) = 1 - 2 / (exp(2 x) + 1); both in one division, which is what takes the time. */
INLINE vec gated(vec a, vec b, vec c, vec d)
{
    const vec of_a = double_exponential_and_one(a), of_c = double_exponential_and_one(c), twice = 2 / (of_a * of_c);
    return (1 - of_c * twice + b) * (1 - of_a * twice + d);
}

/* ---- weights ---- */

/* Those of a block, as PyTorch has them; the keys' come before the values'. */
typedef struct {
    const float *norm, *norm_bias, *queries, *queries_local, *keys_values, *keys_values_local;
    const float *spread, *local, *left, *right, *gather;
} weights;

static matrix weight_of(shape s, const float *from, int64_t outputs, int64_t inputs)
{
    matrix m = packed(from, outputs, inputs);
    return in_form(m, s.form);
}

static vec *packed_norm(const weights *w, int64_t channels)
{
    int64_t vectors = parts(channels, LANES);
    vec *to = room(sizeof(vec) * 3 * vectors);
    memcpy(to, w->norm, 4 * channels);
    memcpy(to + vectors, w->norm_bias, 4 * channels);
    for (int64_t i = 0; i < channels; i++)
        ((float *)(to + 2 * vectors))[i] = 1;
    return to;
}

static const float *pixel(const float *map, shape s, int64_t y, int64_t x)
{
    return map + (y * s.width + x) * s.channels;
}

/* A row of a map, normalised, and its channels mixed. */
static void normalised_and_mixed(const float *from, shape s, const vec *norm, matrix weight, int64_t width, row plain,
                                 row normal, row to)
{
    read_row(from, s.channels, width, plain);
    normalise(plain, norm, s, width, normal);
    mix_channels(normal, weight, width, to, 0);
    end_at(to, width);
}

/* ---- attention ---- */

typedef struct { vec *norm; matrix queries, queries_local, keys, keys_local; } attention;

/* Adds, for each channel of a head, its products with the keys of that head, and the squares of both. */
static void add_products(const float *q, const float *k, int64_t step, int64_t pixels, shape s, vec *room, double *to)
{
    int64_t each = s.channels / s.heads, vectors = parts(each, LANES);
    for (int64_t h = 0; h < s.heads; h++)
        for (int64_t i = 0; i < each; i += BLOCK) {
            factor a = {q + h * each + i, 1, step, pixels, 0};
            for (int64_t v = 0; v < vectors; v += 3)
                some_vectors(a, k + h * each + v * LANES, step, LANES, pixels, BLOCK, room + v, vectors, 1, vectors - v, 0,
                             IN_FLOAT, (scales){0, 0});
            for (int64_t row = 0; row < min(BLOCK, each - i); row++)
                for (int64_t column = 0; column < each; column++)
                    to[(h * each + i + row) * (each + 2) + column] += ((float *)(room + row * vectors))[column];
        }
}

static void add_squares(const float *values, int64_t step, int64_t pixels, int64_t channels, int64_t apart, double *to)
{
    for (int64_t c = 0; c < channels; c += LANES) {
        vec sum = {};
        for (int64_t x = 0; x < pixels; x++) {
            vec value = load(values + x * step + c);
            sum += value * value;
        }
        for (int64_t i = c; i < min(c + LANES, channels); i++)
            to[i * apart] += sum[i - c];
    }
}

static void sums_of_area(const float *x, const float *other, shape s, attention w, area wanted, double *to)
{
    area a = widened(wanted, 1, s.height, s.width);
    int64_t width = a.right - a.left, height = a.bottom - a.top, vectors = parts(s.channels, LANES);
    int64_t pixels = wanted.right - wanted.left, each = s.channels / s.heads, step = vectors * LANES;
    window q = new_window(vectors, width, height), k = new_window(vectors, width, height);
    row plain = new_row(vectors, width), normal = new_row(vectors, width);
    int64_t numbers = pixels * step + 3 * LANES + BLOCK; /* products read a little beyond */
    float *queries = room(4 * numbers), *keys = room(4 * numbers);
    vec *products = room(sizeof(vec) * BLOCK * parts(each, LANES));
    for (int64_t y = 0; y <= height; y++) {
        if (y < height) {
            const float *of_x = pixel(x, s, a.top + y, a.left), *of_other = pixel(other, s, a.top + y, a.left);
            normalised_and_mixed(of_x, s, w.norm, w.queries, width, plain, normal, at(&q, y));
            normalised_and_mixed(of_other, s, w.norm, w.keys, width, plain, normal, at(&k, y));
        }
        if (y - 1 + a.top < wanted.top || y - 1 + a.top >= wanted.bottom)
            continue;
        depthwise_row(&q, y - 1, w.queries_local.numbers, width, plain);
        write_row(plain, wanted.left - a.left, wanted.right - a.left, queries - (wanted.left - a.left) * step, step);
        depthwise_row(&k, y - 1, w.keys_local.numbers, width, plain);
        write_row(plain, wanted.left - a.left, wanted.right - a.left, keys - (wanted.left - a.left) * step, step);
        add_products(queries, keys, step, pixels, s, products, to);
        add_squares(queries, step, pixels, s.channels, each + 2, to + each);
        add_squares(keys, step, pixels, s.channels, each + 2, to + each + 1);
    }
    free_window(&q), free_window(&k), free_row(plain), free_row(normal);
    free(queries), free(keys), free(products);
}

/* Over the wanted pixels: products of queries and keys, squares of queries, squares of keys; (images, heads, c, c + 2),
 * c channels in each head. */
void attention_sums(const float *x, const float *other, double *to, shape s, int64_t images, area wanted,
                    const weights *w, int threads)
{
    attention a = {packed_norm(w, s.channels), weight_of(s, w->queries, s.channels, s.channels),
                   packed(w->queries_local, s.channels, 9), weight_of(s, w->keys_values, s.channels, s.channels),
                   packed(w->keys_values_local, s.channels, 9)};
    grid g = divided(wanted, 4 * 10 * s.channels, images, threads);
    int64_t size = s.height * s.width * s.channels, numbers = s.channels * (s.channels / s.heads + 2);
    int64_t each = g.down * g.across;
    double *found = room(8 * images * each * numbers);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t t = 0; t < images * each; t++)
        sums_of_area(x + t / each * size, other + t / each * size, s, a, part(g, t % each), found + t * numbers);
    for (int64_t t = 0; t < images * each; t++)
        for (int64_t i = 0; i < numbers; i++)
            to[t / each * numbers + i] += found[t * numbers + i];
    free(a.norm), free(a.queries.numbers), free(a.queries_local.numbers);
    free(a.keys.numbers), free(a.keys_local.numbers), free(found);
}

/* ---- the block ---- */

#define MARGIN 3 /* pixels around a result that it depends on */

typedef struct { vec *norm; matrix values, values_local, spread, local, again, gather; } block_weights;

/* (tanh(local(left)) + left) (tanh(local(right)) + right), for the halves of the channels. */
static void gate(const window *from, int64_t y, const vec *weight, int64_t width, vec *lines, row to)
{
    row here = at(from, y);
    vec *of_left = lines, *of_right = lines + width;
    for (int64_t v = 0; v < to.vectors; v++) {
        const vec *left = here.first + v * here.step, *right = left + to.vectors * here.step;
        depthwise(from, y, v, weight + 9 * v, width, of_left);
        depthwise(from, y, v + to.vectors, weight + 9 * (v + to.vectors), width, of_right);
        for (int64_t x = 0; x < width; x++)
            to.first[v * to.step + x] = gated(of_left[x], left[x], of_right[x], right[x]);
    }
}

/* What is known of an area between one row and the next. `around`: with the rows and columns that it depends on. */
typedef struct {
    area wanted, around;
    window values, sums, spread, local; /* the next row of `sums` contains x already */
    row plain, normal, gated;
    vec *lines;
} progress;

static progress begun(area wanted, shape s)
{
    area a = widened(wanted, MARGIN, s.height, s.width);
    int64_t width = a.right - a.left, height = a.bottom - a.top;
    int64_t vectors = parts(s.channels, LANES), gated = parts(s.hidden, LANES);
    return (progress){wanted, a,
                      new_window(vectors, width, height), new_window(vectors, width, height),
                      new_window(2 * gated, width, height), new_window(2 * gated, width, height),
                      new_row(vectors, width), new_row(vectors, width), new_row(gated, width),
                      room(sizeof(vec) * 2 * width)};
}

static void ended(progress *p)
{
    free_window(&p->values), free_window(&p->sums), free_window(&p->spread), free_window(&p->local);
    free_row(p->plain), free_row(p->normal), free_row(p->gated), free(p->lines);
}

/* Rows `first` to `stop` - 1 of what is around an area; and beyond its bottom, where nothing is. Of the maps, x and other
 * begin with row `from` of the image, and the result with row `begin`. Results come MARGIN rows later. */
static void lighten_rows(progress *p, int64_t first, int64_t stop, const float *x, const float *other, int64_t from,
                         float *to, int64_t begin, shape s, const block_weights *w, matrix mixing, int residual)
{
    area a = p->around, wanted = p->wanted;
    int64_t width = a.right - a.left, height = a.bottom - a.top;
    for (int64_t y = first; y < stop; y++) {
        if (y < height)
            normalised_and_mixed(pixel(other, s, a.top + y - from, a.left), s, w->norm, w->values, width, p->plain,
                                 p->normal, at(&p->values, y));
        if (y >= 1 && y - 1 < height) { /* x + attention, and the first step of the gated layer */
            row sum = at(&p->sums, y - 1);
            depthwise_row(&p->values, y - 1, w->values_local.numbers, width, p->plain);
            mix_channels(p->plain, mixing, width, sum, 1);
            normalise(sum, w->norm, s, width, p->normal);
            mix_channels(p->normal, w->spread, width, at(&p->spread, y - 1), 0);
            end_at(at(&p->spread, y - 1), width);
        }
        if (y >= 2 && y - 2 < height)
            depthwise_row(&p->spread, y - 2, w->local.numbers, width, at(&p->local, y - 2));
        int64_t done = a.top + y - MARGIN;
        if (done >= wanted.top && done < wanted.bottom) {
            gate(&p->local, y - MARGIN, w->again.numbers, width, p->lines, p->gated);
            row sum = at(&p->sums, y - MARGIN);
            mix_channels(p->gated, w->gather, width, sum, residual);
            write_row(sum, wanted.left - a.left, wanted.right - a.left,
                      to + ((done - begin) * s.width + a.left) * s.channels, s.channels);
        }
        if (y < height) /* in the place of the row that was the result */
            read_row(pixel(x, s, a.top + y - from, a.left), s.channels, width, at(&p->sums, y));
    }
}

static block_weights packed_block(const weights *w, shape s)
{
    matrix spread = packed_halves(w->spread, w->spread + s.hidden * s.channels, s.hidden, s.channels);
    return (block_weights){packed_norm(w, s.channels),
                           weight_of(s, w->keys_values + s.channels * s.channels, s.channels, s.channels),
                           packed(w->keys_values_local + 9 * s.channels, s.channels, 9),
                           in_form(spread, s.form),
                           packed_halves(w->local, w->local + 9 * s.hidden, s.hidden, 9),
                           packed_halves(w->left, w->right, s.hidden, 9),
                           weight_of(s, w->gather, s.channels, s.hidden)};
}

static void free_block(block_weights b)
{
    free(b.norm), free(b.values.numbers), free(b.values_local.numbers), free(b.spread.numbers);
    free(b.local.numbers), free(b.again.numbers), free(b.gather.numbers);
}

static grid divided_block(shape s, int64_t images, int threads)
{
    return divided((area){0, s.height, 0, s.width}, 4 * (8 * s.channels + 13 * s.hidden), images, threads);
}

/* x + mix values, enhanced; `mix` is (images, channels, channels). */
void lightened(const float *x, const float *other, const float *mix, float *to, shape s, int64_t images,
               const weights *w, int residual, int threads)
{
    block_weights b = packed_block(w, s);
    int64_t size = s.height * s.width * s.channels;
    grid g = divided_block(s, images, threads);
    int64_t each = g.down * g.across;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t t = 0; t < images * each; t++) {
        int64_t i = t / each;
        matrix mixing = weight_of(s, mix + i * s.channels * s.channels, s.channels, s.channels);
        progress p = begun(part(g, t % each), s);
        lighten_rows(&p, 0, p.around.bottom - p.around.top + MARGIN, x + i * size, other + i * size, 0, to + i * size, 0,
                     s, &b, mixing, residual);
        ended(&p), free(mixing.numbers);
    }
    free_block(b);
}

/* ---- the block, some rows at a time ---- */

typedef struct { int64_t areas; progress of[]; } rolling;

/* For one image, whose rows come from the top to the bottom. */
rolling *lighten_begin(shape s, int threads)
{
    grid g = divided_block(s, 1, threads);
    g.across = max(g.across, min(threads, s.width / 48)), g.down = 1;
    rolling *r = room(sizeof(rolling) + g.across * sizeof(progress));
    r->areas = g.across;
    for (int64_t t = 0; t < g.across; t++)
        r->of[t] = begun(part(g, t), s);
    return r;
}

/* Rows `first` to `stop` - 1 of the result; x and other begin with the first row that was not there before. */
void lighten_next(rolling *r, int64_t first, int64_t stop, const float *x, const float *other, const float *mix,
                  float *to, shape s, const weights *w, int residual, int threads)
{
    block_weights b = packed_block(w, s);
    matrix mixing = weight_of(s, mix, s.channels, s.channels);
    int64_t begin = first ? first + MARGIN : 0;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t t = 0; t < r->areas; t++)
        lighten_rows(r->of + t, begin, stop + MARGIN, x, other, begin, to, first, s, &b, mixing, residual);
    free(mixing.numbers), free_block(b);
}

void lighten_end(rolling *r)
{
    for (int64_t t = 0; t < r->areas; t++)
        ended(r->of + t);
    free(r);
}
