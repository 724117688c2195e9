/* Exact arithmetic, version 1, as docs/exact.md has it: a second implementation, in C99.

   cc -O2 -o exact exact.c -lm
   ./exact config.json model.safetensors ID...     the fingerprint of a Llama model and a text
   ./exact < lines                                 an answer to each vector, one a line

   Numbers in square brackets are the sections of docs/exact.md. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 1 /* 1 (s390x): binary32 alone is wider */
#error "binary64 would be rounded twice here (x87): compile with -msse2 -mfpmath=sse"
#endif

#pragma STDC FP_CONTRACT OFF

/* Where [2] forbids a product and a sum to become one operation, the product is a call. A compiler
   that is told -ffp-contract=fast disregards the pragma (clang) or does not know it (gcc), but fuses
   nothing across a call. */
#ifndef NOT_FUSED
#ifdef __GNUC__
#define NOT_FUSED __attribute__((noinline))
#else
#define NOT_FUSED
#endif
#endif

static NOT_FUSED double times(double a, double b) { return a * b; }

static void fail(const char *what, const char *which)
{
    fprintf(stderr, "exact: %s%s\n", what, which);
    exit(1);
}

static void *reserve(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (memory == NULL)
        fail("no memory", "");
    return memory;
}

/* ---- Fixed-point numbers of 288 bits behind the point, from 0 to 2**32; results are cut off. */

#define LIMBS 10

typedef struct {
    uint32_t limb[LIMBS]; /* limb[0] is the whole part */
} Fixed;

static Fixed fixed_from(double x)
{
    Fixed result = {{0}};
    result.limb[0] = (uint32_t)x;
    uint64_t rest = (uint64_t)((x - result.limb[0]) * 0x1p64);
    result.limb[1] = (uint32_t)(rest >> 32);
    result.limb[2] = (uint32_t)rest;
    return result;
}

static Fixed fixed_add(Fixed a, Fixed b)
{
    uint64_t carry = 0;
    for (int i = LIMBS - 1; i >= 0; i--) {
        carry += (uint64_t)a.limb[i] + b.limb[i];
        a.limb[i] = (uint32_t)carry;
        carry >>= 32;
    }
    return a;
}

static Fixed fixed_subtract(Fixed a, Fixed b)
{
    uint64_t borrow = 0;
    for (int i = LIMBS - 1; i >= 0; i--) {
        uint64_t difference = (uint64_t)a.limb[i] - b.limb[i] - borrow;
        a.limb[i] = (uint32_t)difference;
        borrow = difference >> 63;
    }
    return a;
}

static int fixed_less(Fixed a, Fixed b)
{
    for (int i = 0; i < LIMBS; i++)
        if (a.limb[i] != b.limb[i])
            return a.limb[i] < b.limb[i];
    return 0;
}

static Fixed fixed_scale(Fixed a, uint32_t factor)
{
    uint64_t carry = 0;
    for (int i = LIMBS - 1; i >= 0; i--) {
        carry += (uint64_t)a.limb[i] * factor;
        a.limb[i] = (uint32_t)carry;
        carry >>= 32;
    }
    return a;
}

static Fixed fixed_divide(Fixed a, uint32_t divisor)
{
    uint64_t rest = 0;
    for (int i = 0; i < LIMBS; i++) {
        rest = rest << 32 | a.limb[i];
        a.limb[i] = (uint32_t)(rest / divisor);
        rest %= divisor;
    }
    return a;
}

static Fixed fixed_multiply(Fixed a, Fixed b)
{
    uint32_t product[2 * LIMBS] = {0};
    for (int i = LIMBS - 1; i >= 0; i--) {
        uint64_t carry = 0;
        for (int j = LIMBS - 1; j >= 0; j--) {
            carry += (uint64_t)a.limb[i] * b.limb[j] + product[i + j + 1];
            product[i + j + 1] = (uint32_t)carry;
            carry >>= 32;
        }
        product[i] = (uint32_t)carry;
    }
    Fixed result;
    memcpy(result.limb, product + 1, sizeof result.limb);
    return result;
}

/* a / b for a < b, bit by bit. */
static Fixed fixed_quotient(Fixed a, Fixed b)
{
    Fixed result = {{0}};
    for (int bit = 0; bit < 32 * (LIMBS - 1); bit++) {
        a = fixed_add(a, a);
        if (!fixed_less(a, b)) {
            a = fixed_subtract(a, b);
            result.limb[1 + bit / 32] |= (uint32_t)1 << (31 - bit % 32);
        }
    }
    return result;
}

static int fixed_bit(Fixed a, int n)
{
    return n < 32 * LIMBS && (a.limb[n / 32] >> (31 - n % 32) & 1);
}

/* The nearest binary64; a tie cannot be told from its neighbours, and none occurs. */
static double fixed_to_double(Fixed a)
{
    int first = 0;
    while (first < 32 * LIMBS && !fixed_bit(a, first))
        first++;
    if (first == 32 * LIMBS)
        return 0.0;
    uint64_t significand = 0;
    for (int n = first; n < first + 53; n++)
        significand = significand << 1 | (uint64_t)fixed_bit(a, n);
    significand += (uint64_t)fixed_bit(a, first + 53);
    return ldexp((double)significand, 31 - first - 52);
}

static Fixed fixed_exp(Fixed x) /* x <= 1 */
{
    Fixed sum = fixed_from(1.0);
    Fixed term = sum;
    for (uint32_t k = 1; k < 80; k++) {
        term = fixed_divide(fixed_multiply(term, x), k);
        sum = fixed_add(sum, term);
    }
    return sum;
}

/* ln((1 + t) / (1 - t)) = 2 (t + t**3/3 + t**5/5 + ...), t <= 1/3 */
static Fixed fixed_log_of_ratio(Fixed t)
{
    Fixed sum = {{0}};
    Fixed square = fixed_multiply(t, t);
    for (uint32_t k = 1; k < 200; k += 2) {
        sum = fixed_add(sum, fixed_divide(t, k));
        t = fixed_multiply(t, square);
    }
    return fixed_add(sum, sum);
}

static Fixed fixed_log_2(void) { return fixed_log_of_ratio(fixed_divide(fixed_from(1.0), 3)); }

static Fixed fixed_log(double x) /* x >= 1 */
{
    int exponent;
    double m = 2.0 * frexp(x, &exponent); /* 1 <= m < 2 */
    Fixed t = fixed_quotient(fixed_from(m - 1.0), fixed_add(fixed_from(m), fixed_from(1.0)));
    return fixed_add(fixed_log_of_ratio(t), fixed_scale(fixed_log_2(), (uint32_t)(exponent - 1)));
}

/* ---- [5] Elementary functions. */

enum { STEPS = 256, LOWEST = -746, WHOLES = 1456 };

static double *exp_table; /* exp_table[n - 256 * LOWEST] is exp(n / 256), rounded as [5.1] says */

/* x = head * (1 + tail), the head of 26 bits. */
static void head_and_tail(Fixed x, double *head, double *tail)
{
    double rounded = fixed_to_double(x);
    double shifted = times(rounded, 0x1.0000002p+27);
    *head = shifted - (shifted - rounded);
    Fixed h = fixed_from(*head);
    uint32_t integer = (uint32_t)(*head * 0x1p26);
    if (fixed_less(x, h))
        *tail = -0x1p26 * fixed_to_double(fixed_divide(fixed_subtract(h, x), integer));
    else
        *tail = 0x1p26 * fixed_to_double(fixed_divide(fixed_subtract(x, h), integer));
}

static int nearest_exponent(int i) { return (int)rint(i / 0x1.62e42fefa39efp-1); }

static void make_exp_table(void)
{
    static double head[WHOLES], tail[WHOLES], step_head[STEPS], step_tail[STEPS];
    Fixed one = fixed_from(1.0);
    Fixed log_2 = fixed_log_2();
    Fixed e = fixed_exp(one);
    Fixed e_inverse = fixed_exp(fixed_subtract(fixed_add(log_2, log_2), one)); /* 4 / e */
    e_inverse = fixed_divide(e_inverse, 4);
    Fixed power = one; /* e**i * 2**-exponent */
    int exponent = 0;
    for (int i = 0; i < WHOLES + LOWEST; i++) {
        for (; exponent < nearest_exponent(i); exponent++)
            power = fixed_divide(power, 2);
        head_and_tail(power, &head[i - LOWEST], &tail[i - LOWEST]);
        power = fixed_multiply(power, e);
    }
    power = one;
    exponent = 0;
    for (int i = 0; i >= LOWEST; i--) {
        for (; exponent > nearest_exponent(i); exponent--)
            power = fixed_add(power, power);
        head_and_tail(power, &head[i - LOWEST], &tail[i - LOWEST]);
        power = fixed_multiply(power, e_inverse);
    }
    Fixed step = fixed_exp(fixed_divide(one, STEPS));
    power = one;
    for (int j = 0; j < STEPS; j++) {
        head_and_tail(power, &step_head[j], &step_tail[j]);
        power = fixed_multiply(power, step);
    }
    exp_table = reserve((size_t)WHOLES * STEPS, sizeof *exp_table);
    for (int i = 0; i < WHOLES; i++)
        for (int j = 0; j < STEPS; j++) {
            double product = head[i] * step_head[j];
            double rest = tail[i] + step_tail[j] + times(tail[i], step_tail[j]);
            double value = product + times(product, rest);
            exp_table[i * STEPS + j] = ldexp(value, nearest_exponent(i + LOWEST));
        }
}

static double exact_exp(double x)
{
    double f = x * 256.0;
    if (isnan(f))
        return f;
    if (f < -190976.0)
        f = -190976.0;
    if (f > 0x1.62e4395810625p+17)
        f = 0x1.62e4395810625p+17;
    double n = rint(f);
    f -= n;
    double power = exp_table[(int)n + 190976];
    double p = times(f, 0x1.5555555555555p-37);
    p = times(p + 0x1.55555aaaaaaaap-27, f);
    p = times(p + 0x1.0000000000000p-17, f);
    p = times(p + 0x1.ffffffffffeabp-9, f);
    return times(p, power) + power;
}

static const double SINE[8] = {
    0x1.952c77030ad4ap-49, -0x1.ae7f3e733b81fp-41, 0x1.6124613a86d09p-33, -0x1.ae64567f544e4p-26,
    0x1.71de3a556c734p-19, -0x1.a01a01a01a01ap-13, 0x1.1111111111111p-7,  -0x1.5555555555555p-3,
};
static const double COSINE[8] = {
    -0x1.6827863b97d97p-53, 0x1.ae7f3e733b81fp-45, -0x1.93974a8c07c9dp-37, 0x1.1eed8eff8d898p-29,
    -0x1.27e4fb7789f5cp-22, 0x1.a01a01a01a01ap-16, -0x1.6c16c16c16c17p-10, 0x1.5555555555555p-5,
};
static const double HALF_PI[4] = {
    0x1.921fb54400000p+0,
    0x1.0b4611a600000p-34,
    0x1.3198a2e000000p-69,
    0x1.b839a252049c1p-104,
};

/* The sine of x plus so many quarter turns. */
static double sine(double x, int quarters)
{
    double n = rint(times(x, 0x1.45f306dc9c883p-1));
    double r = x;
    for (int i = 0; i < 4; i++)
        r = r - times(n, HALF_PI[i]);
    double square = times(r, r);
    double s = 0.0;
    double c = 0.0;
    for (int i = 0; i < 8; i++) {
        s = times(s + SINE[i], square);
        c = times(c + COSINE[i], square);
    }
    s = times(s, r) + r;
    c = times(c - 0.5, square) + 1.0;
    int turn = ((int)(n - 4.0 * floor(n * 0.25)) + quarters) % 4;
    double value = turn % 2 == 1 ? c : s;
    return turn >= 2 ? -value : value;
}

static double exact_sin(double x) { return sine(x, 0); }
static double exact_cos(double x) { return sine(x, 1); }

/* ---- [3] Grids. */

static double power_below(double y)
{
    int exponent;
    if (y == 0.0)
        return 0.0;
    frexp(y, &exponent);
    return ldexp(1.0, exponent - 1);
}

static double round_to(double x, double grid)
{
    double shift = grid * 0x1.8p+52;
    return (x + shift) - shift;
}

static double largest(const double *x, size_t count)
{
    double top = 0.0;
    for (size_t i = 0; i < count; i++)
        if (fabs(x[i]) > top)
            top = fabs(x[i]);
    return top;
}

static double total(const double *x, size_t count)
{
    double power = power_below(largest(x, count));
    double high_sum = 0.0;
    double low_sum = 0.0;
    for (size_t i = 0; i < count; i++) {
        double high = round_to(fabs(x[i]), power * 0x1p-30);
        high_sum += high;
        low_sum += round_to(fabs(x[i]) - high, power * 0x1p-61);
    }
    return high_sum + low_sum;
}

static double grid_of(const double *x, size_t count, int bits)
{
    return 2.0 * power_below(times(total(x, count), ldexp(0x1.008p+0, -bits)));
}

static void round_row(double *x, size_t count, double grid)
{
    for (size_t i = 0; i < count; i++)
        x[i] = round_to(x[i], grid);
}

/* A sum of integers times one power of two, at most 2**53 of them: any order is exact. */
static double dot(const double *x, const double *y, size_t count)
{
    double sum = 0.0;
    for (size_t i = 0; i < count; i++)
        sum += x[i] * y[i];
    return sum;
}

/* Binary32, where a product of its own or an underflow may have left -0. */
static float narrow_sum(double sum) { return (float)sum + 0.0f; }

/* ---- [4] Operations. */

static void widen(double *out, const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = x[i];
}

/* The rows of a matrix on their grids, (N, K). */
static double *prepared(const float *matrix, size_t rows, size_t width)
{
    double *out = reserve(rows * width, sizeof *out);
    widen(out, matrix, rows * width);
    for (size_t n = 0; n < rows; n++) {
        double *row = out + n * width;
        round_row(row, width, power_below(largest(row, width)) * 0x1p-20);
    }
    return out;
}

static void linear(float *out, const float *x, const double *weight, size_t T, size_t K, size_t N)
{
    double *row = reserve(K, sizeof *row);
    for (size_t t = 0; t < T; t++) {
        widen(row, x + t * K, K);
        round_row(row, K, grid_of(row, K, 32));
        for (size_t n = 0; n < N; n++)
            out[t * N + n] = narrow_sum(dot(row, weight + n * K, K));
    }
    free(row);
}

static double largest_float(const float *x, size_t count)
{
    double top = 0.0;
    for (size_t i = 0; i < count; i++)
        if (fabs(x[i]) > top)
            top = fabs(x[i]);
    return top;
}

static double mean_square(const float *x, size_t K)
{
    double top = largest_float(x, K);
    double grid = power_below(top * top) * 0x1p-32;
    double sum = 0.0;
    for (size_t i = 0; i < K; i++)
        sum += round_to((double)x[i] * x[i], grid);
    return sum / (double)K;
}

static void rms_norm(float *out, const float *x, const double *weight, double eps, size_t T,
                     size_t K)
{
    for (size_t t = 0; t < T; t++) {
        double root = sqrt(mean_square(x + t * K, K) + eps);
        for (size_t i = 0; i < K; i++)
            out[t * K + i] = (float)(x[t * K + i] / root * weight[i]);
    }
}

static void settle(float *x, size_t T, size_t d)
{
    for (size_t t = 0; t < T; t++) {
        float *row = x + t * d;
        double grid = power_below(largest_float(row, d)) * 0x1p-23;
        for (size_t i = 0; i < d; i++)
            row[i] = (float)round_to(row[i], grid);
    }
}

typedef struct {
    int kind; /* 0 none, 1 linear, 2 llama3 */
    double factor, low, high, length;
} Scaling;

static void frequencies(float *out, size_t d, double theta, Scaling scaling)
{
    if (!(theta >= 1.0))
        fail("rope_theta is below 1, which this program does not do", "");
    Fixed log_2 = fixed_log_2();
    Fixed log_theta = fixed_log(theta);
    for (size_t i = 0; i < d / 2; i++) {
        Fixed y = fixed_divide(fixed_scale(log_theta, (uint32_t)(2 * i)), (uint32_t)d);
        int halvings = 1; /* exp(-y) = exp(ln 2 - y) / 2 */
        for (; !fixed_less(y, log_2); halvings++)
            y = fixed_subtract(y, log_2);
        double f = ldexp(fixed_to_double(fixed_exp(fixed_subtract(log_2, y))), -halvings);
        if (scaling.kind) {
            double kept = 0.0;
            if (scaling.kind == 2) {
                double turns = times(scaling.length, f) / 0x1.921fb54442d18p+2;
                kept = (turns - scaling.low) / (scaling.high - scaling.low);
                kept = kept < 0.0 ? 0.0 : kept > 1.0 ? 1.0 : kept;
            }
            f = times(f, kept + (1.0 - kept) / scaling.factor);
        }
        out[i] = (float)f;
    }
}

/* Turn the heads of one token, in place. */
static void rope(float *x, size_t heads, size_t d, const float *frequency, long position)
{
    size_t half = d / 2;
    for (size_t i = 0; i < half; i++) {
        double angle = (float)((double)(float)position * frequency[i]);
        if (!(angle <= 0x1p20))
            fail("a position turns by more than 2**20 radians", "");
        double c = exact_cos(angle);
        double s = exact_sin(angle);
        for (size_t h = 0; h < heads; h++) {
            float *first = x + h * d + i;
            float *second = first + half;
            double a = times(*second, -s) + times(*first, c);
            double b = times(*first, s) + times(*second, c);
            *first = (float)a;
            *second = (float)b;
        }
    }
}

static void gated(float *out, const float *gate, const float *up, size_t count, int gelu)
{
    for (size_t i = 0; i < count; i++) {
        double x = gate[i];
        double y = x;
        if (gelu) {
            double cubic = times(times(x, x), 0x1.6e4e26d4801f7p-5) + 1.0;
            y = times(times(cubic, x), 0x1.9884533d43651p+0);
        }
        double quotient = x / (exact_exp(-y) + 1.0);
        out[i] = (float)(quotient * up[i]);
    }
}

/* The scores of one query and head with S keys that lie `stride` numbers apart. */
static void scores(double *out, const float *q, const float *k, size_t S, size_t stride, size_t d,
                   double scale)
{
    double *query = reserve(d, sizeof *query);
    double *key = reserve(d, sizeof *key);
    for (size_t i = 0; i < d; i++)
        query[i] = times(q[i], scale);
    round_row(query, d, grid_of(query, d, 29));
    for (size_t s = 0; s < S; s++) {
        widen(key, k + s * stride, d);
        out[s] = dot(query, key, d) + 0.0;
    }
    free(query);
    free(key);
}

/* In place; a score of -infinity is a key that is not seen. */
static void softmax(double *row, size_t S, long context)
{
    int bits = 53;
    for (long rest = context - 1; rest > 0; rest /= 2)
        bits--;
    double grid = ldexp(1.0, -(bits < 40 ? bits : 40));
    double top = -INFINITY;
    double sum = 0.0;
    for (size_t s = 0; s < S; s++)
        top = fmax(top, row[s]);
    for (size_t s = 0; s < S; s++) {
        row[s] = round_to(exact_exp(row[s] - top), grid);
        sum += row[s];
    }
    for (size_t s = 0; s < S; s++)
        row[s] /= sum;
}

/* One query and head; `pattern` is used up. */
static void weighted_sum(float *out, double *pattern, const float *v, size_t S, size_t stride,
                         size_t d)
{
    double *power = reserve(S, sizeof *power);
    double *sum = reserve(d, sizeof *sum);
    for (size_t s = 0; s < S; s++) {
        power[s] = power_below(fmax(0x1p-149, largest_float(v + s * stride, d)));
        pattern[s] *= power[s];
    }
    round_row(pattern, S, grid_of(pattern, S, 29));
    for (size_t s = 0; s < S; s++)
        for (size_t i = 0; i < d; i++)
            sum[i] += pattern[s] / power[s] * v[s * stride + i];
    for (size_t i = 0; i < d; i++)
        out[i] = narrow_sum(sum[i]);
    free(power);
    free(sum);
}

/* ---- [6] The decoder. */

typedef struct {
    double *input_norm, *pre_mlp_norm, *q_norm, *k_norm, *post_attention_norm, *post_mlp_norm;
    double *q, *k, *v, *o, *gate, *up, *down;
    float *q_bias, *k_bias, *v_bias;
    int slides;
} Layer;

typedef struct {
    size_t V, D, F, L, H, G, d;
    long context;
    double eps, theta, local_theta, scale;
    Scaling scaling;
    int tied, bias, qk_norm, sandwich, scaled_embedding, gelu;
    double norm_offset;
    size_t window;
    float *embedding;
    Layer *layers;
    double *norm, *head;
} Model;

/* Where tensors come from: a vector's line, in [6]'s order, or a safetensors file, by name. */
static float *tensor(const char *block, const char *name, size_t count);

static double *norm_weight(const Model *m, const char *block, const char *name, size_t count)
{
    float *given = tensor(block, name, count);
    double *out = reserve(count, sizeof *out);
    for (size_t i = 0; i < count; i++)
        out[i] = given[i] + m->norm_offset;
    free(given);
    return out;
}

static double *matrix(const char *block, const char *name, size_t rows, size_t width)
{
    float *given = tensor(block, name, rows * width);
    double *out = prepared(given, rows, width);
    free(given);
    return out;
}

static void load_layer(const Model *m, Layer *layer, const char *b)
{
    size_t Q = m->H * m->d;
    size_t K = m->G * m->d;
    layer->input_norm = norm_weight(m, b, "input_layernorm.weight", m->D);
    layer->q = matrix(b, "self_attn.q_proj.weight", Q, m->D);
    layer->k = matrix(b, "self_attn.k_proj.weight", K, m->D);
    layer->v = matrix(b, "self_attn.v_proj.weight", K, m->D);
    layer->o = matrix(b, "self_attn.o_proj.weight", m->D, Q);
    if (m->bias) {
        layer->q_bias = tensor(b, "self_attn.q_proj.bias", Q);
        layer->k_bias = tensor(b, "self_attn.k_proj.bias", K);
        layer->v_bias = tensor(b, "self_attn.v_proj.bias", K);
    }
    if (m->qk_norm) {
        layer->q_norm = norm_weight(m, b, "self_attn.q_norm.weight", m->d);
        layer->k_norm = norm_weight(m, b, "self_attn.k_norm.weight", m->d);
    }
    if (m->sandwich) {
        layer->post_attention_norm = norm_weight(m, b, "post_attention_layernorm.weight", m->D);
        layer->pre_mlp_norm = norm_weight(m, b, "pre_feedforward_layernorm.weight", m->D);
        layer->post_mlp_norm = norm_weight(m, b, "post_feedforward_layernorm.weight", m->D);
    } else {
        layer->pre_mlp_norm = norm_weight(m, b, "post_attention_layernorm.weight", m->D);
    }
    layer->gate = matrix(b, "mlp.gate_proj.weight", m->F, m->D);
    layer->up = matrix(b, "mlp.up_proj.weight", m->F, m->D);
    layer->down = matrix(b, "mlp.down_proj.weight", m->D, m->F);
}

static void load_weights(Model *m)
{
    m->embedding = tensor("", "model.embed_tokens.weight", m->V * m->D);
    for (size_t l = 0; l < m->L; l++) {
        char block[64];
        snprintf(block, sizeof block, "model.layers.%zu.", l);
        load_layer(m, &m->layers[l], block);
    }
    m->norm = norm_weight(m, "", "model.norm.weight", m->D);
    if (m->tied)
        m->head = prepared(m->embedding, m->V, m->D);
    else
        m->head = matrix("", "lm_head.weight", m->V, m->D);
}

static void add(float *x, const float *y, size_t count)
{
    for (size_t i = 0; i < count; i++)
        x[i] = (float)((double)x[i] + y[i]);
}

/* Heads of one projection: product, bias, norm of each head, rotation. */
static float *projected(const Model *m, const float *x, size_t T, size_t heads, const double *weight,
                        const float *bias, const double *norm, const float *frequency)
{
    size_t width = heads * m->d;
    float *out = reserve(T * width, sizeof *out);
    linear(out, x, weight, T, m->D, width);
    for (size_t t = 0; t < T; t++) {
        float *row = out + t * width;
        if (bias)
            add(row, bias, width);
        if (norm)
            rms_norm(row, row, norm, m->eps, heads, m->d);
        if (frequency)
            rope(row, heads, m->d, frequency, (long)t);
    }
    return out;
}

static void attend(const Model *m, const Layer *layer, float *out, const float *x, size_t T,
                   const float *frequency)
{
    size_t d = m->d;
    float *q = projected(m, x, T, m->H, layer->q, layer->q_bias, layer->q_norm, frequency);
    float *k = projected(m, x, T, m->G, layer->k, layer->k_bias, layer->k_norm, frequency);
    float *v = projected(m, x, T, m->G, layer->v, layer->v_bias, NULL, NULL);
    float *z = reserve(T * m->H * d, sizeof *z);
    double *row = reserve(T, sizeof *row);
    size_t stride = m->G * d;
    settle(k, T * m->G, d);
    settle(v, T * m->G, d);
    for (size_t t = 0; t < T; t++)
        for (size_t h = 0; h < m->H; h++) {
            size_t first = layer->slides && t + 1 > m->window ? t + 1 - m->window : 0;
            size_t seen = t + 1 - first;
            size_t group = first * stride + h / (m->H / m->G) * d;
            size_t own = (t * m->H + h) * d;
            scores(row, q + own, k + group, seen, stride, d, m->scale);
            softmax(row, seen, m->context);
            weighted_sum(z + own, row, v + group, seen, stride, d);
        }
    linear(out, z, layer->o, T, m->H * d, m->D);
    free(q), free(k), free(v), free(z), free(row);
}

static void mlp(const Model *m, const Layer *layer, float *out, const float *x, size_t T)
{
    float *gate = reserve(T * m->F, sizeof *gate);
    float *up = reserve(T * m->F, sizeof *up);
    linear(gate, x, layer->gate, T, m->D, m->F);
    linear(up, x, layer->up, T, m->D, m->F);
    gated(gate, gate, up, T * m->F, m->gelu);
    linear(out, gate, layer->down, T, m->F, m->D);
    free(gate), free(up);
}

/* The logits of all positions, (T, V). */
static float *forward(const Model *m, const long *ids, size_t T)
{
    size_t D = m->D;
    float *x = reserve(T * D, sizeof *x);
    float *normed = reserve(T * D, sizeof *normed);
    float *added = reserve(T * D, sizeof *added);
    float *frequency = reserve(m->d / 2, sizeof *frequency);
    float *local = reserve(m->d / 2, sizeof *local);
    Scaling unscaled = {0, 0, 0, 0, 0};
    frequencies(frequency, m->d, m->theta, m->scaling);
    if (m->local_theta)
        frequencies(local, m->d, m->local_theta, unscaled);
    else
        frequencies(local, m->d, m->theta, m->scaling);
    for (size_t t = 0; t < T; t++) {
        if (ids[t] < 0 || (size_t)ids[t] >= m->V)
            fail("a token id is outside the vocabulary", "");
        memcpy(x + t * D, m->embedding + (size_t)ids[t] * D, D * sizeof *x);
    }
    if (m->scaled_embedding) {
        float root = (float)sqrt((double)D);
        for (size_t i = 0; i < T * D; i++)
            x[i] = (float)((double)x[i] * root);
    }
    for (size_t l = 0; l < m->L; l++) {
        const Layer *layer = &m->layers[l];
        rms_norm(normed, x, layer->input_norm, m->eps, T, D);
        attend(m, layer, added, normed, T, layer->slides ? local : frequency);
        if (m->sandwich)
            rms_norm(added, added, layer->post_attention_norm, m->eps, T, D);
        add(x, added, T * D);
        rms_norm(normed, x, layer->pre_mlp_norm, m->eps, T, D);
        mlp(m, layer, added, normed, T);
        if (m->sandwich)
            rms_norm(added, added, layer->post_mlp_norm, m->eps, T, D);
        add(x, added, T * D);
    }
    float *logits = reserve(T * m->V, sizeof *logits);
    rms_norm(normed, x, m->norm, m->eps, T, D);
    linear(logits, normed, m->head, T, D, m->V);
    free(x), free(normed), free(added), free(frequency), free(local);
    return logits;
}

/* ---- SHA-256 (FIPS 180-4). Its constants are the first bits of roots of primes. */

typedef struct {
    uint32_t state[8];
    unsigned char block[64];
    uint64_t length;
} Sha;

static uint32_t sha_round[64];

static uint32_t turn_right(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* The largest whole r with r**power <= prime * 2**(32 * power), modulo 2**32. */
static uint32_t root_bits(uint32_t prime, int power)
{
    Fixed low = {{0}};
    for (int bit = 35; bit >= 0; bit--) { /* roots of primes below 312 are below 2**5 */
        Fixed next = low;
        int n = 31 - (bit - 32);
        next.limb[n / 32] |= (uint32_t)1 << (31 - n % 32);
        Fixed raised = fixed_multiply(next, next);
        if (power == 3)
            raised = fixed_multiply(raised, next);
        if (!fixed_less(fixed_from(prime), raised))
            low = next;
    }
    return low.limb[1];
}

static uint32_t sha_start[8];

static void make_sha_constants(void)
{
    int found = 0;
    for (uint32_t n = 2; found < 64; n++) {
        int prime = 1;
        for (uint32_t divisor = 2; divisor * divisor <= n; divisor++)
            prime = prime && n % divisor;
        if (!prime)
            continue;
        sha_round[found] = root_bits(n, 3);
        if (found < 8)
            sha_start[found] = root_bits(n, 2);
        found++;
    }
}

static void sha_block(Sha *sha)
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)sha->block[4 * i] << 24 | (uint32_t)sha->block[4 * i + 1] << 16 |
               (uint32_t)sha->block[4 * i + 2] << 8 | sha->block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t early = turn_right(w[i - 15], 7) ^ turn_right(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t late = turn_right(w[i - 2], 17) ^ turn_right(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + early + w[i - 7] + late;
    }
    memcpy(s, sha->state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t e = turn_right(s[4], 6) ^ turn_right(s[4], 11) ^ turn_right(s[4], 25);
        uint32_t choice = (s[4] & s[5]) ^ (~s[4] & s[6]);
        uint32_t first = s[7] + e + choice + sha_round[i] + w[i];
        uint32_t a = turn_right(s[0], 2) ^ turn_right(s[0], 13) ^ turn_right(s[0], 22);
        uint32_t majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += first;
        s[0] = first + a + majority;
    }
    for (int i = 0; i < 8; i++)
        sha->state[i] += s[i];
}

static void sha_byte(Sha *sha, unsigned char byte)
{
    sha->block[sha->length++ % 64] = byte;
    if (sha->length % 64 == 0)
        sha_block(sha);
}

/* A number's bytes, the least significant first. */
static void sha_number(Sha *sha, uint64_t number, int bytes)
{
    for (int shift = 0; shift < 8 * bytes; shift += 8)
        sha_byte(sha, (unsigned char)(number >> shift));
}

static void sha_print(Sha *sha)
{
    uint64_t bits = sha->length * 8;
    sha_byte(sha, 0x80);
    while (sha->length % 64 != 56)
        sha_byte(sha, 0);
    for (int shift = 56; shift >= 0; shift -= 8)
        sha_byte(sha, (unsigned char)(bits >> shift));
    for (int i = 0; i < 8; i++)
        printf("%08x", (unsigned)sha->state[i]);
    printf("\n");
}

static Sha sha_new(void)
{
    Sha sha = {{0}, {0}, 0};
    make_sha_constants();
    memcpy(sha.state, sha_start, sizeof sha.state);
    return sha;
}

static uint32_t bits_of_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static uint64_t bits_of_double(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* ---- A model folder's files: [7]. */

static unsigned char *file_bytes; /* a safetensors file */
static size_t file_size, data_start;
static char *header;

static unsigned char *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        fail("cannot read ", path);
    size_t room = 1 << 16;
    unsigned char *bytes = reserve(room + 1, 1);
    *size = 0;
    for (;;) {
        size_t got = fread(bytes + *size, 1, room - *size, file);
        *size += got;
        if (got == 0)
            break;
        if (*size == room) {
            room *= 2;
            bytes = realloc(bytes, room + 1);
            if (bytes == NULL)
                fail("no memory for ", path);
        }
    }
    fclose(file);
    bytes[*size] = 0;
    return bytes;
}

static const char *behind_blanks(const char *text) { return text + strspn(text, " \t\r\n"); }

/* What stands behind "key": in a JSON text, or NULL. */
static const char *json_value(const char *text, const char *key)
{
    size_t length = strlen(key);
    for (const char *p = strchr(text, '"'); p; p = strchr(p + 1, '"')) {
        if (strncmp(p + 1, key, length) || p[length + 1] != '"')
            continue;
        p = behind_blanks(p + length + 2);
        if (*p == ':')
            return behind_blanks(p + 1);
    }
    return NULL;
}

static double json_number(const char *text, const char *key, double otherwise)
{
    const char *value = json_value(text, key);
    if (value == NULL || !strncmp(value, "null", 4)) {
        if (isnan(otherwise))
            fail("config.json lacks ", key);
        return otherwise;
    }
    char *end;
    double number = strtod(value, &end);
    if (end == value)
        fail("config.json holds no number for ", key);
    return number;
}

static uint64_t little_endian(const unsigned char *bytes, size_t count)
{
    uint64_t value = 0;
    while (count--)
        value = value << 8 | bytes[count];
    return value;
}

static float half_to_float(uint32_t half)
{
    int exponent = (int)(half >> 10 & 31);
    double significand = half & 1023;
    double size = exponent ? ldexp(significand + 1024.0, exponent - 25) : ldexp(significand, -24);
    if (exponent == 31)
        fail("a float16 weight is not finite", "");
    return (float)(half >> 15 ? -size : size);
}

static float *tensor_of_file(const char *name, size_t count)
{
    const char *entry = json_value(header, name);
    if (entry == NULL)
        fail("the safetensors file lacks ", name);
    const char *dtype = json_value(entry, "dtype");
    const char *offsets = json_value(entry, "data_offsets");
    char *next;
    if (dtype == NULL || offsets == NULL)
        fail("the safetensors file says no dtype or data_offsets of ", name);
    size_t start = data_start + strtoull(offsets + 1, &next, 10);
    size_t end = data_start + strtoull(next + 1, NULL, 10);
    int is_float32 = !strncmp(dtype, "\"F32\"", 5);
    int is_bfloat16 = !strncmp(dtype, "\"BF16\"", 6);
    if (!is_float32 && !is_bfloat16 && strncmp(dtype, "\"F16\"", 5))
        fail("not float32, bfloat16 or float16: ", name);
    size_t width = is_float32 ? 4 : 2;
    if (end > file_size || start > end || end - start != count * width)
        fail("the safetensors file has another size for ", name);
    float *out = reserve(count, sizeof *out);
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = (uint32_t)little_endian(file_bytes + start + i * width, width);
        if (is_float32)
            out[i] = float_of_bits(bits);
        else
            out[i] = is_bfloat16 ? float_of_bits(bits << 16) : half_to_float(bits);
    }
    return out;
}

static Model read_config(const char *path)
{
    size_t size;
    const char *text = (const char *)read_file(path, &size);
    Model m = {0};
    const char *kind = json_value(text, "model_type");
    if (kind && strncmp(kind, "\"llama\"", 7))
        fail("a file's model_type must be llama; the other families are for vectors: ", path);
    m.V = (size_t)json_number(text, "vocab_size", NAN);
    m.D = (size_t)json_number(text, "hidden_size", NAN);
    m.F = (size_t)json_number(text, "intermediate_size", NAN);
    m.L = (size_t)json_number(text, "num_hidden_layers", NAN);
    m.H = (size_t)json_number(text, "num_attention_heads", NAN);
    m.G = (size_t)json_number(text, "num_key_value_heads", (double)m.H);
    m.d = (size_t)json_number(text, "head_dim", (double)(m.D / m.H));
    m.context = (long)json_number(text, "max_position_embeddings", NAN);
    m.eps = json_number(text, "rms_norm_eps", 1e-6);
    m.theta = json_number(text, "rope_theta", 10000.0);
    m.scaling.factor = json_number(text, "factor", 0.0);
    m.scaling.low = json_number(text, "low_freq_factor", 0.0);
    m.scaling.high = json_number(text, "high_freq_factor", 0.0);
    m.scaling.length = json_number(text, "original_max_position_embeddings", 0.0);
    m.scaling.kind = m.scaling.factor == 0.0 ? 0 : m.scaling.low == 0.0 ? 1 : 2;
    m.scale = 1.0 / sqrt((double)m.d);
    const char *tied = json_value(text, "tie_word_embeddings");
    m.tied = tied && !strncmp(tied, "true", 4);
    m.layers = reserve(m.L, sizeof *m.layers);
    return m;
}

static int fingerprint(int count, char **arguments)
{
    if (count < 3)
        fail("give config.json, model.safetensors and token ids", "");
    Model m = read_config(arguments[0]);
    file_bytes = read_file(arguments[1], &file_size);
    if (file_size < 8 || little_endian(file_bytes, 8) > file_size - 8)
        fail("no safetensors file: ", arguments[1]);
    size_t length = (size_t)little_endian(file_bytes, 8);
    header = reserve(length + 1, 1);
    memcpy(header, file_bytes + 8, length);
    data_start = 8 + length;
    load_weights(&m);
    size_t T = (size_t)count - 2;
    long *ids = reserve(T, sizeof *ids);
    for (size_t t = 0; t < T; t++) {
        char *end;
        ids[t] = strtol(arguments[2 + t], &end, 10);
        if (end == arguments[2 + t] || *end)
            fail("not a token id: ", arguments[2 + t]);
    }
    if ((long)T > m.context)
        fail("more tokens than max_position_embeddings", "");
    float *logits = forward(&m, ids, T);
    Sha sha = sha_new();
    for (size_t i = 0; i < T * m.V; i++)
        sha_number(&sha, bits_of_float(logits[i]), 4);
    sha_print(&sha);
    return 0;
}

/* ---- Vectors: [8]. */

static long whole(void)
{
    long value;
    if (scanf("%ld", &value) != 1)
        fail("a vector lacks a whole number", "");
    return value;
}

static uint64_t hexadecimal(size_t digits)
{
    char word[20];
    if (scanf("%19s", word) != 1 || strlen(word) != digits)
        fail("a vector lacks a number's bits", "");
    return strtoull(word, NULL, 16);
}

static double binary64(void)
{
    uint64_t bits = hexadecimal(16);
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float *floats(size_t count)
{
    float *out = reserve(count, sizeof *out);
    for (size_t i = 0; i < count; i++)
        out[i] = float_of_bits((uint32_t)hexadecimal(8));
    return out;
}

static double *doubles(size_t count)
{
    double *out = reserve(count, sizeof *out);
    for (size_t i = 0; i < count; i++)
        out[i] = binary64();
    return out;
}

static void say_floats(const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        printf("%s%08x", i ? " " : "", (unsigned)bits_of_float(x[i]));
    printf("\n");
}

static void say_doubles(const double *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        printf("%s%016llx", i ? " " : "", (unsigned long long)bits_of_double(x[i]));
    printf("\n");
}

static float *tensor(const char *block, const char *name, size_t count)
{
    if (file_bytes == NULL)
        return floats(count);
    char full[160];
    snprintf(full, sizeof full, "%s%s", block, name);
    return tensor_of_file(full, count);
}

static Scaling read_scaling(void)
{
    Scaling scaling;
    scaling.kind = (int)whole();
    scaling.factor = binary64();
    scaling.low = binary64();
    scaling.high = binary64();
    scaling.length = binary64();
    return scaling;
}

static void answer_elementwise(double (*function)(double))
{
    size_t count = (size_t)whole();
    double *x = doubles(count);
    for (size_t i = 0; i < count; i++)
        x[i] = function(x[i]);
    say_doubles(x, count);
}

static void answer_exp_table(void)
{
    Sha sha = sha_new();
    for (int n = 0; n <= 181704 + 190976; n++)
        sha_number(&sha, bits_of_double(exp_table[n]), 8);
    sha_print(&sha);
}

static void answer_round_to(void)
{
    size_t count = (size_t)whole();
    double *x = doubles(count);
    double *grid = doubles(count);
    for (size_t i = 0; i < count; i++)
        x[i] = round_to(x[i], grid[i]);
    say_doubles(x, count);
}

static void answer_grid(void)
{
    int bits = (int)whole();
    size_t count = (size_t)whole();
    double *x = doubles(count);
    double both[2] = {total(x, count), grid_of(x, count, bits)};
    say_doubles(both, 2);
}

static void answer_linear(void)
{
    size_t T = (size_t)whole(), K = (size_t)whole(), N = (size_t)whole();
    float *x = floats(T * K);
    double *weight = matrix("", "", N, K);
    float *out = reserve(T * N, sizeof *out);
    linear(out, x, weight, T, K, N);
    say_floats(out, T * N);
}

static void answer_rms_norm(void)
{
    size_t T = (size_t)whole(), K = (size_t)whole();
    double eps = binary64();
    double *weight = doubles(K);
    float *x = floats(T * K);
    rms_norm(x, x, weight, eps, T, K);
    say_floats(x, T * K);
}

static void answer_mean_square(void)
{
    size_t T = (size_t)whole(), K = (size_t)whole();
    float *x = floats(T * K);
    double *out = reserve(T, sizeof *out);
    for (size_t t = 0; t < T; t++)
        out[t] = mean_square(x + t * K, K);
    say_doubles(out, T);
}

static void answer_settle(void)
{
    size_t T = (size_t)whole(), d = (size_t)whole();
    float *x = floats(T * d);
    settle(x, T, d);
    say_floats(x, T * d);
}

static void answer_frequencies(void)
{
    size_t d = (size_t)whole();
    double theta = binary64();
    Scaling scaling = read_scaling();
    float *out = reserve(d / 2, sizeof *out);
    frequencies(out, d, theta, scaling);
    say_floats(out, d / 2);
}

static void answer_rope(void)
{
    size_t heads = (size_t)whole(), d = (size_t)whole();
    long position = whole();
    float *frequency = floats(d / 2);
    float *x = floats(heads * d);
    rope(x, heads, d, frequency, position);
    say_floats(x, heads * d);
}

static void answer_gated(void)
{
    int gelu = (int)whole();
    size_t count = (size_t)whole();
    float *gate = floats(count);
    float *up = floats(count);
    gated(gate, gate, up, count, gelu);
    say_floats(gate, count);
}

static void answer_scores(void)
{
    size_t S = (size_t)whole(), d = (size_t)whole();
    double scale = binary64();
    float *q = floats(d);
    float *k = floats(S * d);
    double *out = reserve(S, sizeof *out);
    scores(out, q, k, S, d, d, scale);
    say_doubles(out, S);
}

static void answer_softmax(void)
{
    long context = whole();
    size_t S = (size_t)whole();
    double *row = doubles(S);
    softmax(row, S, context);
    say_doubles(row, S);
}

static void answer_weighted_sum(void)
{
    size_t S = (size_t)whole(), d = (size_t)whole();
    double *pattern = doubles(S);
    float *v = floats(S * d);
    float *out = reserve(d, sizeof *out);
    weighted_sum(out, pattern, v, S, d, d);
    say_floats(out, d);
}

static void answer_model(void)
{
    Model m = {0};
    size_t *shape[7] = {&m.V, &m.D, &m.F, &m.L, &m.H, &m.G, &m.d};
    for (int i = 0; i < 7; i++)
        *shape[i] = (size_t)whole();
    m.context = whole();
    m.eps = binary64();
    m.theta = binary64();
    m.local_theta = binary64();
    m.scaling = read_scaling();
    m.scale = 1.0 / sqrt(binary64());
    m.norm_offset = binary64();
    int *trait[6] = {&m.tied, &m.bias, &m.qk_norm, &m.sandwich, &m.scaled_embedding, &m.gelu};
    for (int i = 0; i < 6; i++)
        *trait[i] = (int)whole();
    m.window = (size_t)whole();
    m.layers = reserve(m.L, sizeof *m.layers);
    for (size_t l = 0; l < m.L; l++)
        m.layers[l].slides = (int)whole();
    size_t T = (size_t)whole();
    long *ids = reserve(T, sizeof *ids);
    for (size_t t = 0; t < T; t++)
        ids[t] = whole();
    load_weights(&m);
    say_floats(forward(&m, ids, T), T * m.V);
}

static void answer_exp(void) { answer_elementwise(exact_exp); }
static void answer_sin(void) { answer_elementwise(exact_sin); }
static void answer_cos(void) { answer_elementwise(exact_cos); }
static void answer_power_below(void) { answer_elementwise(power_below); }

static const struct {
    const char *name;
    void (*answer)(void);
} OPERATIONS[] = {
    {"exp", answer_exp},
    {"sin", answer_sin},
    {"cos", answer_cos},
    {"exp_table", answer_exp_table},
    {"power_below", answer_power_below},
    {"round_to", answer_round_to},
    {"grid", answer_grid},
    {"linear", answer_linear},
    {"mean_square", answer_mean_square},
    {"rms_norm", answer_rms_norm},
    {"settle", answer_settle},
    {"frequencies", answer_frequencies},
    {"rope", answer_rope},
    {"gated", answer_gated},
    {"scores", answer_scores},
    {"softmax", answer_softmax},
    {"weighted_sum", answer_weighted_sum},
    {"model", answer_model},
};

static void answer(const char *operation)
{
    for (size_t i = 0; i < sizeof OPERATIONS / sizeof *OPERATIONS; i++)
        if (!strcmp(operation, OPERATIONS[i].name)) {
            OPERATIONS[i].answer();
            return;
        }
    fail("no such operation: ", operation);
}

int main(int count, char **arguments)
{
    char operation[32];
    make_exp_table();
    if (count > 1)
        return fingerprint(count - 1, arguments + 1);
    while (scanf("%31s", operation) == 1)
        answer(operation);
    return 0;
}
