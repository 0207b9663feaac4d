/* Convolutions that keep the size, with one or two inputs for each result, or with few results; see depthwise.py.
 *
 * Maps are (images, rows, width, channels), channels a multiple of LANES. A few pixels of a row are computed at a time; their
 * sums are in registers.
 */
#include "rows.h"

#if LANES == 16
#define PIXELS 8 /* at a time */
#else
#define PIXELS 6
#endif
#define CACHED (1 << 18) /* bytes of the rows that a row of results depends on */

typedef uint64_t pairs __attribute__((vector_size(4 * LANES)));

typedef struct {
    const float *x;
    int64_t rows, width, channels; /* of each image */
    int64_t above;                 /* rows of x before the first row of the result */
    int64_t height;                /* of the result */
    const float *kernel;           /* (taps, taps, channels); with two inputs, twice; with few results, of each of them */
    const float *bias;             /* or NULL */
    float *result;
    int64_t outputs;               /* few, or 0: as many as channels */
} problem;

INLINE vec swapped(vec v) /* the lanes of each pair */
{
    pairs p = (pairs)v;
    return (vec)(p << 32 | p >> 32);
}

/* Rows of the kernel that are within the image, for a row of the result. */
INLINE void rows_of_kernel(const problem *q, int64_t y, int taps, int *first, int *stop)
{
    const int64_t top = y + q->above - taps / 2;
    *first = (int)max(0, -top);
    *stop = (int)min(taps, q->rows - top);
}

/* `count` pixels of a row, from x on; `edge`: some of what they depend on is beyond the row. */
INLINE void some_pixels(const problem *q, int64_t image, int64_t y, int64_t x, int count, int taps, int inputs, int edge)
{
    const int64_t channels = q->channels, size = taps * taps * channels, half = taps / 2;
    float *to = q->result + ((image * q->height + y) * q->width + x) * channels;
    int first, stop;
    rows_of_kernel(q, y, taps, &first, &stop);
    for (int64_t c = 0; c < channels; c += LANES) {
        vec sums[PIXELS];
        for (int i = 0; i < count; i++)
            sums[i] = q->bias ? load(q->bias + c) : (vec){};
        for (int dy = first; dy < stop; dy++) {
            const int64_t row = image * q->rows + y + q->above - half + dy;
            const float *from = q->x + (row * q->width + x - half) * channels + c;
            const float *kernel = q->kernel + dy * taps * channels + c;
            vec weights[5], others[5];
            for (int dx = 0; dx < taps; dx++) {
                weights[dx] = load(kernel + dx * channels);
                if (inputs == 2)
                    others[dx] = load(kernel + size + dx * channels);
            }
            for (int at = 0; at < count + taps - 1; at++) {
                if (edge && (x - half + at < 0 || x - half + at >= q->width))
                    continue;
                const vec value = load(from + at * channels);
                for (int dx = 0; dx < taps; dx++)
                    if (at - dx >= 0 && at - dx < count)
                        sums[at - dx] += value * weights[dx];
                if (inputs == 2) {
                    const vec other = swapped(value);
                    for (int dx = 0; dx < taps; dx++)
                        if (at - dx >= 0 && at - dx < count)
                            sums[at - dx] += other * others[dx];
                }
            }
        }
        for (int i = 0; i < count; i++)
            *(loose *)(to + i * channels + c) = sums[i];
    }
}

INLINE float sum_of_lanes(vec v)
{
    quad sum = {};
    for (int i = 0; i < LANES; i += 4)
        sum += (quad){v[i], v[i + 1], v[i + 2], v[i + 3]};
    return sum[0] + sum[1] + (sum[2] + sum[3]);
}

/* As `some_pixels`, for few results. */
INLINE void few_results(const problem *q, int64_t image, int64_t y, int64_t x, int count, int taps, int inputs, int edge)
{
    const int64_t channels = q->channels, size = taps * taps * channels, half = taps / 2;
    float *to = q->result + ((image * q->height + y) * q->width + x) * q->outputs;
    int first, stop;
    rows_of_kernel(q, y, taps, &first, &stop);
    for (int64_t output = 0; output < q->outputs; output++) {
        vec sums[PIXELS] = {};
        for (int dy = first; dy < stop; dy++) {
            const int64_t row = image * q->rows + y + q->above - half + dy;
            const float *from = q->x + (row * q->width + x - half) * channels;
            const float *kernel = q->kernel + output * size + dy * taps * channels;
            for (int64_t c = 0; c < channels; c += LANES)
                for (int dx = 0; dx < taps; dx++) {
                    const vec weight = load(kernel + dx * channels + c);
                    for (int i = 0; i < count; i++)
                        if (!edge || (x - half + dx + i >= 0 && x - half + dx + i < q->width))
                            sums[i] += weight * load(from + (dx + i) * channels + c);
                }
        }
        for (int i = 0; i < count; i++)
            to[i * q->outputs + output] = sum_of_lanes(sums[i]) + (q->bias ? q->bias[output] : 0);
    }
}

/* All pixels; `pixels` is one of the functions above. */
#define FOR_ALL(pixels, taps, inputs)                                                                                   \
    do {                                                                                                                \
        const int64_t half = taps / 2, wide = max(PIXELS, CACHED / ((taps + 1) * q->channels * 4));                     \
        const int64_t across = parts(q->width, wide), high = 16, down = parts(q->height, high);                         \
        _Pragma("omp parallel for num_threads(threads) schedule(dynamic)")                                              \
        for (int64_t part = 0; part < images * down * across; part++) {                                                 \
            const int64_t image = part / down / across, top = part / across % down * high;                              \
            const int64_t left = part % across * wide, right = min(left + wide, q->width);                              \
            for (int64_t y = top; y < min(top + high, q->height); y++)                                                  \
                for (int64_t x = left; x < right;)                                                                      \
                    if (x >= half && x + PIXELS <= min(right, q->width - half)) {                                       \
                        pixels(q, image, y, x, PIXELS, taps, inputs, 0);                                                \
                        x += PIXELS;                                                                                    \
                    } else                                                                                              \
                        pixels(q, image, y, x++, 1, taps, inputs, 1);                                                   \
        }                                                                                                               \
    } while (0)

int64_t lanes(void) { return LANES; }

/* taps: 3 or 5; inputs: of each result, 1 or 2; without effect if there are few results. */
void convolve(const problem *q, int64_t images, int taps, int inputs, int threads)
{
    if (q->outputs && taps == 3)
        FOR_ALL(few_results, 3, 1);
    else if (q->outputs)
        FOR_ALL(few_results, 5, 1);
    else if (inputs == 2 && taps == 3)
        FOR_ALL(some_pixels, 3, 2);
    else if (inputs == 2)
        FOR_ALL(some_pixels, 5, 2);
    else if (taps == 3)
        FOR_ALL(some_pixels, 3, 1);
    else
        FOR_ALL(some_pixels, 5, 1);
}
