/* Exact arithmetic, version 1, written from the text of docs/exact.md alone: its author had that page
 * and the known answers, and had seen nothing else of minikv.
 *     gcc -O2 -ffp-contract=off -o from_text from_text.c      (no libm)
 * Reads the vectors of section 8 on standard input, one a line; prints one answer a line. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *why) { fprintf(stderr, "from_text: %s\n", why); exit(2); }

static void *room(size_t n, size_t size) /* never freed: a vector is small */
{
    void *p = calloc(n ? n : 1, size);
    if (!p) die("no memory");
    return p;
}

static double *doubles(size_t n) { return room(n, sizeof(double)); }
static float *floats(size_t n) { return room(n, sizeof(float)); }

/* ---- bits, and what C99 has in libm -------------------------------------------------- */

static uint64_t bits64(double x) { uint64_t b; memcpy(&b, &x, 8); return b; }
static double double_of(uint64_t b) { double x; memcpy(&x, &b, 8); return x; }
static uint32_t bits32(float x) { uint32_t b; memcpy(&b, &x, 4); return b; }
static float float_of(uint32_t b) { float x; memcpy(&x, &b, 4); return x; }
static double absolute(double x) { return x < 0 ? -x : x; }
static double rint_(double x) { return (x + 0x1.8p+52) - 0x1.8p+52; } /* |x| < 2^51 */

static double pow2(int e) /* -1022 <= e <= 1023 */
{
    return double_of((uint64_t)(e + 1023) << 52);
}

/* x > 0 as m * 2^e with 1 <= m < 2 */
static double split(double x, int *e)
{
    *e = 0;
    while (x < 0x1p-1022) { x *= 2; --*e; }
    *e += (int)(bits64(x) >> 52) - 1023;
    return double_of((bits64(x) & 0x000fffffffffffffULL) | 0x3ff0000000000000ULL);
}

/* Square root, correctly rounded: 54 binary digits, one at a time, then rounded. */
static double root(double x)
{
    int e, i;
    double m;
    uint64_t number, rest = 0, y = 0, t;
    if (!(x > 0)) return x;
    m = split(x, &e);
    if (e & 1) { m *= 2; --e; }
    number = (uint64_t)(m * 0x1p+52); /* 53 or 54 bits: m * 2^52; its digits in pairs, then zeros */
    for (i = 0; i < 54; i++) {
        rest = rest << 2 | (i < 27 ? number >> (52 - 2 * i) & 3 : 0);
        t = y << 2 | 1;
        y <<= 1;
        if (rest >= t) { rest -= t; y |= 1; }
    }
    y = (y >> 1) + (y & 1); /* y is sqrt(m) * 2^53, cut; half a unit is the last digit; no ties */
    return (double)y * pow2(e / 2 - 52);
}

/* ---- fixed point: two's complement, 32 bits before the point, 192 behind it ----------- */

enum { BEHIND = 6, LIMBS = BEHIND + 1 };
typedef struct { uint32_t w[LIMBS]; } fix; /* least significant first */

static int negative(fix a) { return a.w[LIMBS - 1] >> 31; }

static fix plus(fix a, fix b)
{
    uint64_t carry = 0;
    for (int i = 0; i < LIMBS; i++) {
        carry += (uint64_t)a.w[i] + b.w[i];
        a.w[i] = (uint32_t)carry;
        carry >>= 32;
    }
    return a;
}

static fix negate(fix a)
{
    fix one = {{1}};
    for (int i = 0; i < LIMBS; i++) a.w[i] = ~a.w[i];
    return plus(a, one);
}

static fix minus(fix a, fix b) { return plus(a, negate(b)); }

static fix times(fix a, fix b)
{
    uint32_t p[2 * LIMBS] = {0};
    int sign = negative(a) != negative(b);
    if (negative(a)) a = negate(a);
    if (negative(b)) b = negate(b);
    for (int i = 0; i < LIMBS; i++) {
        uint64_t carry = 0;
        for (int j = 0; j < LIMBS; j++) {
            carry += (uint64_t)a.w[i] * b.w[j] + p[i + j];
            p[i + j] = (uint32_t)carry;
            carry >>= 32;
        }
        p[i + LIMBS] = (uint32_t)carry;
    }
    memcpy(a.w, p + BEHIND, sizeof a.w);
    return sign ? negate(a) : a;
}

static fix over(fix a, uint32_t n)
{
    int sign = negative(a);
    uint64_t rest = 0;
    if (sign) a = negate(a);
    for (int i = LIMBS - 1; i >= 0; i--) {
        rest = rest << 32 | a.w[i];
        a.w[i] = (uint32_t)(rest / n);
        rest %= n;
    }
    return sign ? negate(a) : a;
}

static fix fixed(double x) /* exact, of |x| < 2^31 without digits under 2^-192 */
{
    fix a;
    double y = absolute(x);
    for (int i = LIMBS - 1; i >= 0; i--) {
        a.w[i] = (uint32_t)y;
        y = (y - a.w[i]) * 0x1p+32;
    }
    return x < 0 ? negate(a) : a;
}

static double nearest(fix a)
{
    int sign = negative(a), top = 32 * LIMBS - 1;
    uint64_t m = 0;
    if (sign) a = negate(a);
#define BIT(i) ((i) >= 0 ? a.w[(i) / 32] >> (i) % 32 & 1u : 0u)
    while (top >= 0 && !BIT(top)) top--;
    if (top < 0) return 0;
    for (int i = top; i > top - 53; i--) m = m << 1 | BIT(i);
    m += BIT(top - 53);
    return (sign ? -1.0 : 1.0) * ((double)m * pow2(top - 52 - 32 * BEHIND));
}

static fix fixed_exp(fix x) /* |x| <= 1 */
{
    fix sum = fixed(1), term = sum;
    for (uint32_t n = 1; n < 60; n++) {
        term = over(times(term, x), n);
        sum = plus(sum, term);
    }
    return sum;
}

static fix fixed_ln2(void) /* 2 artanh(1/3) */
{
    fix sum = fixed(0), power = over(fixed(2), 3);
    for (uint32_t n = 1; n < 150; n += 2) {
        sum = plus(sum, over(power, n));
        power = over(power, 9);
    }
    return sum;
}

static fix fixed_log(double x) /* Newton's method, of x > 0 */
{
    int e;
    fix m = fixed(split(x, &e)), y = fixed(0);
    for (int i = 0; i < 11; i++) y = minus(plus(y, times(m, fixed_exp(negate(y)))), fixed(1));
    return plus(y, times(fixed_ln2(), fixed(e)));
}

/* e^x as a number in about 0.7 .. 1.42 and a power of two */
static fix fixed_exp2(fix x, int *k)
{
    fix ln2 = fixed_ln2();
    *k = (int)rint_(nearest(x) / 0x1.62e42fefa39efp-1);
    return fixed_exp(minus(x, times(ln2, fixed(*k))));
}

/* ---- SHA-256 (FIPS 180-4) ------------------------------------------------------------- */

static const uint32_t SHA_K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static void sha256(const unsigned char *data, size_t length, char hex[65])
{
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    size_t blocks = (length + 8) / 64 + 1;
    for (size_t block = 0; block < blocks; block++) {
        uint32_t w[64], v[8];
        for (int i = 0; i < 64; i++) {
            size_t at = block * 64 + i;
            uint32_t byte = at < length ? data[at] : at == length ? 0x80 : 0;
            if (at >= blocks * 64 - 8) byte = (uint32_t)((uint64_t)length * 8 >> 8 * (blocks * 64 - 1 - at)) & 255;
            w[i / 4] = i % 4 ? w[i / 4] << 8 | byte : byte;
        }
#define ROT(x, n) ((x) >> (n) | (x) << (32 - (n)))
        for (int i = 16; i < 64; i++)
            w[i] = w[i - 16] + w[i - 7] + (ROT(w[i - 15], 7) ^ ROT(w[i - 15], 18) ^ w[i - 15] >> 3)
                   + (ROT(w[i - 2], 17) ^ ROT(w[i - 2], 19) ^ w[i - 2] >> 10);
        memcpy(v, h, sizeof v);
        for (int i = 0; i < 64; i++) {
            uint32_t a = v[0], e = v[4];
            uint32_t t = v[7] + (ROT(e, 6) ^ ROT(e, 11) ^ ROT(e, 25)) + ((e & v[5]) ^ (~e & v[6])) + SHA_K[i] + w[i];
            uint32_t u = (ROT(a, 2) ^ ROT(a, 13) ^ ROT(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
            memmove(v + 1, v, 7 * sizeof *v);
            v[4] += t;
            v[0] = t + u;
        }
        for (int i = 0; i < 8; i++) h[i] += v[i];
    }
    for (int i = 0; i < 8; i++) sprintf(hex + 8 * i, "%08x", (unsigned)h[i]);
}

/* ---- section 3: grids ----------------------------------------------------------------- */

static double power_below(double y)
{
    int e;
    if (!(y > 0)) return 0;
    split(y, &e);
    return e >= -1022 ? pow2(e) : pow2(-1022) * pow2(e + 1022);
}

static double round_to(double x, double g)
{
    double s = g * 0x1.8p+52;
    return (x + s) - s;
}

static double largest(const double *x, int n)
{
    double most = 0;
    for (int i = 0; i < n; i++)
        if (absolute(x[i]) > most) most = absolute(x[i]);
    return most;
}

static double total(const double *x, int n)
{
    double p = power_below(largest(x, n)), high = 0, low = 0;
    for (int i = 0; i < n; i++) {
        double a = absolute(x[i]), h = round_to(a, p * 0x1p-30);
        high += h;
        low += round_to(a - h, p * 0x1p-61);
    }
    return high + low;
}

static double grid(const double *x, int n, int b)
{
    return 2 * power_below(total(x, n) * (0x1.008p+0 * pow2(-b)));
}

/* ---- section 5: elementary functions -------------------------------------------------- */

enum { FIRST = -190976, LAST = 181704 };
static double E[LAST - FIRST + 1];

static void parts(fix v, double *head, double *tail)
{
    double c = nearest(v), s = c * 0x1.0000002p+27;
    *head = s - (s - c);
    /* v / head - 1 = (v - head) * 2^26 / (head * 2^26), the divisor a whole number */
    *tail = nearest(over(times(minus(v, fixed(*head)), fixed(0x1p+26)), (uint32_t)(*head * 0x1p+26)));
}

static void make_table(void)
{
    double b[256], r[256];
    fix ln2 = fixed_ln2();
    for (int j = 0; j < 256; j++) parts(fixed_exp(fixed(j / 256.0)), &b[j], &r[j]);
    for (int i = -746; i <= 709; i++) {
        int k = (int)rint_(i / 0x1.62e42fefa39efp-1);
        double a, t;
        parts(fixed_exp(minus(fixed(i), times(ln2, fixed(k)))), &a, &t);
        for (int j = 0; j < 256 && 256 * i + j <= LAST; j++) {
            double m = a * b[j], e = m + m * ((t + r[j]) + t * r[j]);
            E[256 * i + j - FIRST] = k < -1022 ? (e * pow2(-1000)) * pow2(k + 1000) : e * pow2(k);
        }
    }
}

static double exp_(double x)
{
    double f = x * 256, n, q, e;
    if (f < FIRST) f = FIRST;
    if (f > 0x1.62e4395810625p+17) f = 0x1.62e4395810625p+17;
    n = rint_(f);
    f = f - n;
    q = f * 0x1.5555555555555p-37;
    q = (q + 0x1.55555aaaaaaaap-27) * f;
    q = (q + 0x1.0000000000000p-17) * f;
    q = (q + 0x1.ffffffffffeabp-9) * f;
    e = E[(int)n - FIRST];
    return q * e + e;
}

static const double S[8] = {
    0x1.952c77030ad4ap-49, -0x1.ae7f3e733b81fp-41, 0x1.6124613a86d09p-33, -0x1.ae64567f544e4p-26,
    0x1.71de3a556c734p-19, -0x1.a01a01a01a01ap-13, 0x1.1111111111111p-7, -0x1.5555555555555p-3,
};
static const double C[8] = {
    -0x1.6827863b97d97p-53, 0x1.ae7f3e733b81fp-45, -0x1.93974a8c07c9dp-37, 0x1.1eed8eff8d898p-29,
    -0x1.27e4fb7789f5cp-22, 0x1.a01a01a01a01ap-16, -0x1.6c16c16c16c17p-10, 0x1.5555555555555p-5,
};

static void sin_cos(double x, double *sine, double *cosine)
{
    double n, r, z, s = 0, c = 0;
    if (!(absolute(x) <= 0x1p+20)) die("an angle above 2^20");
    n = rint_(x * 0x1.45f306dc9c883p-1);
    r = x - n * 0x1.921fb54400000p+0;
    r = r - n * 0x1.0b4611a600000p-34;
    r = r - n * 0x1.3198a2e000000p-69;
    r = r - n * 0x1.b839a252049c1p-104;
    z = r * r;
    for (int i = 0; i < 8; i++) s = (s + S[i]) * z;
    s = s * r + r;
    for (int i = 0; i < 8; i++) c = (c + C[i]) * z;
    c = (c - 0.5) * z + 1;
    switch ((int)n & 3) {
    case 0: *sine = s; *cosine = c; break;
    case 1: *sine = c; *cosine = -s; break;
    case 2: *sine = -s; *cosine = -c; break;
    default: *sine = -c; *cosine = s;
    }
}

typedef struct { int kind; double factor, low, high, original; } scaling;

static float *frequencies(int d, double theta, scaling c)
{
    float *out = floats(d / 2);
    fix log = fixed_log(theta);
    for (int i = 0; i < d / 2; i++) {
        int k;
        fix v = fixed_exp2(over(times(log, fixed(-2.0 * i)), d), &k);
        double f = nearest(v) * pow2(k), kept = 0;
        if (c.kind == 2) {
            double turns = (c.original * f) / 0x1.921fb54442d18p+2;
            kept = (turns - c.low) / (c.high - c.low);
            kept = kept < 0 ? 0 : kept > 1 ? 1 : kept;
        }
        out[i] = c.kind ? (float)(f * (kept + (1 - kept) / c.factor)) : (float)f;
    }
    return out;
}

/* ---- section 4: operations ------------------------------------------------------------ */

typedef struct { int n, k; double *w; } matrix;

static double *widen(const float *x, size_t n)
{
    double *y = doubles(n);
    for (size_t i = 0; i < n; i++) y[i] = x[i];
    return y;
}

static matrix weights(const float *w, int n, int k)
{
    matrix m = {n, k, widen(w, (size_t)n * k)};
    for (int r = 0; r < n; r++) {
        double *row = m.w + (size_t)r * k, g = power_below(largest(row, k)) * 0x1p-20;
        for (int i = 0; i < k; i++) row[i] = round_to(row[i], g);
    }
    return m;
}

static float *linear(const float *x, int t, matrix m)
{
    float *y = floats((size_t)t * m.n);
    for (int r = 0; r < t; r++) {
        double *row = widen(x + (size_t)r * m.k, m.k), g = grid(row, m.k, 32);
        for (int i = 0; i < m.k; i++) row[i] = round_to(row[i], g);
        for (int n = 0; n < m.n; n++) {
            double sum = 0;
            for (int i = 0; i < m.k; i++) sum += row[i] * m.w[(size_t)n * m.k + i];
            y[(size_t)r * m.n + n] = (float)sum + 0.0f;
        }
        free(row);
    }
    return y;
}

static double mean_square(const float *x, int k)
{
    double g = 0, sum = 0;
    for (int i = 0; i < k; i++) {
        double square = (double)x[i] * x[i];
        if (square > g) g = square;
    }
    g = power_below(g) * 0x1p-32;
    for (int i = 0; i < k; i++) sum += round_to((double)x[i] * x[i], g);
    return sum / k;
}

static float *rms_norm(const float *x, int rows, int k, const double *w, double eps)
{
    float *y = floats((size_t)rows * k);
    for (int r = 0; r < rows; r++) {
        const float *from = x + (size_t)r * k;
        double by = root(mean_square(from, k) + eps);
        for (int i = 0; i < k; i++) y[(size_t)r * k + i] = (float)((from[i] / by) * w[i]);
    }
    return y;
}

static void settle(float *x, int rows, int d)
{
    for (int r = 0; r < rows; r++, x += d) {
        double *row = widen(x, d), g = power_below(largest(row, d)) * 0x1p-23;
        for (int i = 0; i < d; i++) x[i] = (float)round_to(row[i], g);
        free(row);
    }
}

static void rope(float *x, int heads, int d, int position, const float *frequency)
{
    int half = d / 2;
    for (int i = 0; i < half; i++) {
        double s, c;
        sin_cos((float)((double)(float)position * frequency[i]), &s, &c);
        for (int h = 0; h < heads; h++) {
            float *a = x + (size_t)h * d + i, *b = a + half;
            double p = *a, q = *b;
            *a = (float)(q * (-s) + p * c);
            *b = (float)(p * s + q * c);
        }
    }
}

/* Keys, and values below, stand `step` numbers apart. */
static double *scores(const float *q, const float *k, int s, int d, int step, double scale)
{
    double *row = doubles(d), *out = doubles(s), g;
    for (int i = 0; i < d; i++) row[i] = q[i] * scale;
    g = grid(row, d, 29);
    for (int i = 0; i < d; i++) row[i] = round_to(row[i], g);
    for (int n = 0; n < s; n++) {
        double sum = 0;
        for (int i = 0; i < d; i++) sum += row[i] * k[(size_t)n * step + i];
        out[n] = sum + 0.0;
    }
    return out;
}

static void softmax(double *x, int s, int context)
{
    int b = 53;
    double most = x[0], sum = 0;
    for (int n = context - 1; n > 0; n /= 2) b--;
    if (b > 40) b = 40;
    for (int i = 1; i < s; i++)
        if (x[i] > most) most = x[i];
    for (int i = 0; i < s; i++) sum += x[i] = round_to(exp_(x[i] - most), pow2(-b));
    for (int i = 0; i < s; i++) x[i] = x[i] / sum;
}

static void weighted_sum(const double *p, const float *v, int s, int d, int step, float *z)
{
    double *u = doubles(s), *a = doubles(s), g;
    for (int n = 0; n < s; n++) {
        double most = 0x1p-149;
        for (int i = 0; i < d; i++)
            if (absolute(v[(size_t)n * step + i]) > most) most = absolute(v[(size_t)n * step + i]);
        u[n] = power_below(most);
        a[n] = p[n] * u[n];
    }
    g = grid(a, s, 29);
    for (int n = 0; n < s; n++) a[n] = round_to(a[n], g) / u[n];
    for (int i = 0; i < d; i++) {
        double sum = 0;
        for (int n = 0; n < s; n++) sum += a[n] * v[(size_t)n * step + i];
        z[i] = (float)sum + 0.0f;
    }
}

static float gated(double x, double up, int gelu)
{
    double y = x;
    if (gelu) y = (((x * x) * 0x1.6e4e26d4801f7p-5 + 1) * x) * 0x1.9884533d43651p+0;
    return (float)((x / (exp_(-y) + 1)) * up);
}

/* ---- section 8: words of a vector ----------------------------------------------------- */

static const char *word(void)
{
    static char text[64];
    if (scanf("%63s", text) != 1) die("a vector ends too early");
    return text;
}

static int whole(void) { return atoi(word()); }
static double real(void) { return double_of(strtoull(word(), 0, 16)); }

static double *reals(size_t n)
{
    double *x = doubles(n);
    for (size_t i = 0; i < n; i++) x[i] = real();
    return x;
}

static float *singles(size_t n)
{
    float *x = floats(n);
    for (size_t i = 0; i < n; i++) x[i] = float_of((uint32_t)strtoul(word(), 0, 16));
    return x;
}

static scaling read_scaling(void)
{
    scaling c;
    c.kind = whole();
    c.factor = real();
    c.low = real();
    c.high = real();
    c.original = real();
    return c;
}

static void put64(const double *x, size_t n)
{
    for (size_t i = 0; i < n; i++) printf("%016llx ", (unsigned long long)bits64(x[i]));
}

static void put32(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) printf("%08lx ", (unsigned long)bits32(x[i]));
}

/* ---- section 6: the decoder ----------------------------------------------------------- */

static double *read_norm(int n, double offset)
{
    double *w = widen(singles(n), n);
    for (int i = 0; i < n; i++) w[i] += offset;
    return w;
}

static matrix read_matrix(int n, int k) { return weights(singles((size_t)n * k), n, k); }

static void add(float *x, const float *y, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] = x[i] + y[i];
}

static void add_bias(float *x, const float *bias, int rows, int n)
{
    for (int r = 0; r < rows; r++) add(x + (size_t)r * n, bias, n);
}

static float *attention(const float *q, const float *k, const float *v, int T, int H, int G, int d, int window,
                        double scale, int context)
{
    float *z = floats((size_t)T * H * d);
    for (int t = 0; t < T; t++) {
        int first = window && t - window + 1 > 0 ? t - window + 1 : 0, seen = t - first + 1;
        for (int h = 0; h < H; h++) {
            size_t at = ((size_t)t * H + h) * d, key = ((size_t)first * G + h / (H / G)) * d;
            double *p = scores(q + at, k + key, seen, d, G * d, scale);
            softmax(p, seen, context);
            weighted_sum(p, v + key, seen, d, G * d, z + at);
        }
    }
    return z;
}

static float *model(int *count)
{
    int V = whole(), D = whole(), F = whole(), L = whole(), H = whole(), G = whole(), d = whole(), context = whole();
    double eps = real(), theta = real(), local = real();
    scaling none = {0, 0, 0, 0, 0}, c = read_scaling();
    double scale = 1 / root(real()), offset = real();
    int tied = whole(), bias = whole(), head_norms = whole(), post_norms = whole(), scaled = whole(), gelu = whole();
    int window = whole(), *slides = room(L, sizeof(int)), T, *ids;
    float *frequency = frequencies(d, theta, c), *near_ = local > 0 ? frequencies(d, local, none) : frequency;
    float *embedding, *x;
    double *last;
    for (int l = 0; l < L; l++) slides[l] = whole();
    T = whole();
    ids = room(T, sizeof(int));
    for (int t = 0; t < T; t++) ids[t] = whole();
    embedding = singles((size_t)V * D);
    x = floats((size_t)T * D);
    for (int t = 0; t < T; t++)
        for (int i = 0; i < D; i++) {
            float e = embedding[(size_t)ids[t] * D + i];
            x[(size_t)t * D + i] = scaled ? (float)((double)e * (float)root(D)) : e;
        }
    for (int l = 0; l < L; l++) { /* a layer is read when it is its turn: the order is that of 6.1 */
        double *input_norm = read_norm(D, offset), *mlp_norm, *after_attention = 0, *after_mlp = 0;
        matrix wq = read_matrix(H * d, D), wk = read_matrix(G * d, D), wv = read_matrix(G * d, D);
        matrix wo = read_matrix(D, H * d), gate, up, down;
        float *n = rms_norm(x, T, D, input_norm, eps), *a, *m, *u;
        float *q = linear(n, T, wq), *k = linear(n, T, wk), *v = linear(n, T, wv);
        if (bias) {
            add_bias(q, singles(H * d), T, H * d);
            add_bias(k, singles(G * d), T, G * d);
            add_bias(v, singles(G * d), T, G * d);
        }
        if (head_norms) {
            q = rms_norm(q, T * H, d, read_norm(d, offset), eps);
            k = rms_norm(k, T * G, d, read_norm(d, offset), eps);
        }
        for (int t = 0; t < T; t++) {
            rope(q + (size_t)t * H * d, H, d, t, slides[l] ? near_ : frequency);
            rope(k + (size_t)t * G * d, G, d, t, slides[l] ? near_ : frequency);
        }
        settle(k, T * G, d);
        settle(v, T * G, d);
        a = linear(attention(q, k, v, T, H, G, d, slides[l] ? window : 0, scale, context), T, wo);
        mlp_norm = read_norm(D, offset); /* post_attention_layernorm */
        if (post_norms) {
            after_attention = mlp_norm;
            mlp_norm = read_norm(D, offset);
            after_mlp = read_norm(D, offset);
            a = rms_norm(a, T, D, after_attention, eps);
        }
        add(x, a, (size_t)T * D);
        gate = read_matrix(F, D);
        up = read_matrix(F, D);
        down = read_matrix(D, F);
        n = rms_norm(x, T, D, mlp_norm, eps);
        m = linear(n, T, gate);
        u = linear(n, T, up);
        for (size_t i = 0; i < (size_t)T * F; i++) m[i] = gated(m[i], u[i], gelu);
        m = linear(m, T, down);
        if (post_norms) m = rms_norm(m, T, D, after_mlp, eps);
        add(x, m, (size_t)T * D);
    }
    last = read_norm(D, offset);
    *count = T * V;
    return linear(rms_norm(x, T, D, last, eps), T, tied ? weights(embedding, V, D) : read_matrix(V, D));
}

/* ---- section 7: the fingerprint, and section 5.1's ------------------------------------- */

static void fingerprint(const void *data, size_t n, int size, char hex[65])
{
    unsigned char *bytes = room(n, size);
    for (size_t i = 0; i < n; i++) {
        uint64_t b = size == 8 ? bits64(((const double *)data)[i]) : bits32(((const float *)data)[i]);
        for (int j = 0; j < size; j++) bytes[i * size + j] = (unsigned char)(b >> 8 * j);
    }
    sha256(bytes, n * size, hex);
    free(bytes);
}

/* ---- section 8: the vectors ------------------------------------------------------------ */

static void answer(const char *operation, int hash)
{
#define IS(name) (!strcmp(operation, name))
    char hex[65];
    if (IS("exp") || IS("sin") || IS("cos") || IS("power_below")) {
        int n = whole();
        double *x = reals(n), other;
        for (int i = 0; i < n; i++) {
            if (IS("exp")) x[i] = exp_(x[i]);
            else if (IS("sin")) sin_cos(x[i], &x[i], &other);
            else if (IS("cos")) sin_cos(x[i], &other, &x[i]);
            else x[i] = power_below(x[i]);
        }
        put64(x, n);
    } else if (IS("exp_table")) {
        fingerprint(E, LAST - FIRST + 1, 8, hex);
        printf("%s", hex);
    } else if (IS("round_to")) {
        int n = whole();
        double *x = reals(n), *g = reals(n);
        for (int i = 0; i < n; i++) x[i] = round_to(x[i], g[i]);
        put64(x, n);
    } else if (IS("grid")) {
        int b = whole(), n = whole();
        double *x = reals(n), both[2];
        both[0] = total(x, n);
        both[1] = grid(x, n, b);
        put64(both, 2);
    } else if (IS("linear")) {
        int t = whole(), k = whole(), n = whole();
        float *x = singles((size_t)t * k);
        put32(linear(x, t, read_matrix(n, k)), (size_t)t * n);
    } else if (IS("mean_square")) {
        int t = whole(), k = whole();
        float *x = singles((size_t)t * k);
        for (int r = 0; r < t; r++) {
            double y = mean_square(x + (size_t)r * k, k);
            put64(&y, 1);
        }
    } else if (IS("rms_norm")) {
        int t = whole(), k = whole();
        double eps = real(), *w = reals(k);
        put32(rms_norm(singles((size_t)t * k), t, k, w, eps), (size_t)t * k);
    } else if (IS("settle")) {
        int t = whole(), d = whole();
        float *x = singles((size_t)t * d);
        settle(x, t, d);
        put32(x, (size_t)t * d);
    } else if (IS("frequencies")) {
        int d = whole();
        double theta = real();
        put32(frequencies(d, theta, read_scaling()), d / 2);
    } else if (IS("rope")) {
        int heads = whole(), d = whole(), position = whole();
        float *frequency = singles(d / 2), *x = singles((size_t)heads * d);
        rope(x, heads, d, position, frequency);
        put32(x, (size_t)heads * d);
    } else if (IS("gated")) {
        int gelu = whole(), n = whole();
        float *x = singles(n), *up = singles(n);
        for (int i = 0; i < n; i++) x[i] = gated(x[i], up[i], gelu);
        put32(x, n);
    } else if (IS("scores")) {
        int s = whole(), d = whole();
        double scale = real();
        float *q = singles(d), *k = singles((size_t)s * d);
        put64(scores(q, k, s, d, d, scale), s);
    } else if (IS("softmax")) {
        int context = whole(), s = whole();
        double *x = reals(s);
        softmax(x, s, context);
        put64(x, s);
    } else if (IS("weighted_sum")) {
        int s = whole(), d = whole();
        double *p = reals(s);
        float *v = singles((size_t)s * d), *z = floats(d);
        weighted_sum(p, v, s, d, d, z);
        put32(z, d);
    } else if (IS("model")) {
        int n;
        float *logits = model(&n);
        fingerprint(logits, n, 4, hex);
        if (hash) printf("%s", hex);
        else put32(logits, n);
    } else die("an unknown operation");
    printf("\n");
}

int main(int argc, char **argv)
{
    char operation[64];
    int hash = argc > 1 && !strcmp(argv[1], "--fingerprint"); /* of a model: section 7, not the logits */
    make_table();
    while (scanf("%63s", operation) == 1) answer(operation, hash);
    return 0;
}
