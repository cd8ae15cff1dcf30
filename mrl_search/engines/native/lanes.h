// The steps that need a processor's own instructions, for the instruction set LEVEL: 3 is AVX-512
// with BW, DQ, VL and VNNI; 2 is AVX2 with FMA and F16C; 0 is whatever the compiler makes of plain
// loops, and NEON's table look-up on ARM. Included once for each level, in a namespace of its own.

// Sums of several running totals, so that an addition need not wait for the one before it.
#define SUMMED(...) _Pragma(#__VA_ARGS__)

#if LEVEL == 3

constexpr const char* NAME = "AVX-512";
using Floats = __m512;
using Doubles = __m512d;

inline Floats load(const Half* x) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
}
inline Floats load(const float* x) { return _mm512_loadu_ps(x); }
inline Doubles load(const double* x) { return _mm512_loadu_pd(x); }
inline Doubles lower(Floats v) { return _mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
inline Doubles upper(Floats v) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Doubles fused(Doubles a, Doubles b, Doubles c) { return _mm512_fmadd_pd(a, b, c); }
inline float total(Floats v) { return _mm512_reduce_add_ps(v); }
inline double total(Doubles v) { return _mm512_reduce_add_pd(v); }

#elif LEVEL == 2

constexpr const char* NAME = "AVX2";
using Floats = __m256;
using Doubles = __m256d;

inline Floats load(const Half* x) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
}
inline Floats load(const float* x) { return _mm256_loadu_ps(x); }
inline Doubles load(const double* x) { return _mm256_loadu_pd(x); }
inline Doubles lower(Floats v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
inline Doubles upper(Floats v) { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }
inline Floats fused(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Doubles fused(Doubles a, Doubles b, Doubles c) { return _mm256_fmadd_pd(a, b, c); }
inline float total(Floats v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
inline double total(Doubles v) {
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

#else

constexpr const char* NAME = "plain";

#endif

#if LEVEL > 0

// Inner product with q and square of the norm of the first n numbers of a row, in float32.
template <typename T>
inline void roughly(const T* x, const float* q, int64_t n, float& product, float& square) {
    constexpr int64_t lanes = sizeof(Floats) / sizeof(float);
    Floats p0{}, p1{}, s0{}, s1{};
    int64_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
        const Floats a = load(x + i), b = load(x + i + lanes);
        p0 = fused(a, load(q + i), p0);
        p1 = fused(b, load(q + i + lanes), p1);
        s0 = fused(a, a, s0);
        s1 = fused(b, b, s1);
    }
    product = total(p0 + p1);
    square = total(s0 + s1);
    for (; i < n; i++) {
        const float a = number(x[i]);
        product += a * q[i];
        square += a * a;
    }
}

// The same in float64: of float32 numbers, every product is exact.
template <typename T>
inline void precisely(const T* x, const double* q, int64_t n, double& product, double& square) {
    constexpr int64_t lanes = sizeof(Doubles) / sizeof(double);
    Doubles p0{}, p1{}, s0{}, s1{};
    int64_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
        const Floats both = load(x + i);
        const Doubles a = lower(both), b = upper(both);
        p0 = fused(a, load(q + i), p0);
        p1 = fused(b, load(q + i + lanes), p1);
        s0 = fused(a, a, s0);
        s1 = fused(b, b, s1);
    }
    product = total(p0 + p1);
    square = total(s0 + s1);
    for (; i < n; i++) {
        const double a = number(x[i]);
        product += a * q[i];
        square += a * a;
    }
}

// Sum of n products, n a multiple of 32: int8 is widened, then pairs are multiplied and added.
#if LEVEL == 3
inline int32_t whole(const int8_t* x, const int16_t* q, int64_t n) {
    __m512i sum = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += 32) {
        const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
        sum = _mm512_dpwssd_epi32(sum, _mm512_cvtepi8_epi16(bytes), _mm512_loadu_si512(q + i));
    }
    return _mm512_reduce_add_epi32(sum);
}
#else
inline int32_t whole(const int8_t* x, const int16_t* q, int64_t n) {
    __m256i sum = _mm256_setzero_si256();
    for (int64_t i = 0; i < n; i += 16) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i));
        const __m256i by = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q + i));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_cvtepi8_epi16(bytes), by));
    }
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    four = _mm_add_epi32(four, _mm_unpackhi_epi64(four, four));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 1)));
}
#endif

// Products of a query with a block of CENTROIDS vectors in int8: pair after pair of dims, two
// numbers of each vector in turn, so that one addition serves many vectors.
inline void block_products(const int8_t* block, const int16_t* q, int64_t pairs,
                           int32_t* products) {
#if LEVEL == 3
    constexpr int count = CENTROIDS / 16;
    __m512i sums[count] = {};
    for (int64_t p = 0; p < pairs; p++, block += 2 * CENTROIDS) {
        int32_t both;
        std::memcpy(&both, q + 2 * p, sizeof both);
        const __m512i by = _mm512_set1_epi32(both);
        for (int j = 0; j < count; j++) {
            const auto* at = reinterpret_cast<const __m256i*>(block + 32 * j);
            sums[j] = _mm512_dpwssd_epi32(
                sums[j], _mm512_cvtepi8_epi16(_mm256_loadu_si256(at)), by);
        }
    }
    for (int j = 0; j < count; j++) _mm512_storeu_si512(products + 16 * j, sums[j]);
#else
    constexpr int count = CENTROIDS / 8;
    __m256i sums[count] = {};
    for (int64_t p = 0; p < pairs; p++, block += 2 * CENTROIDS) {
        int32_t both;
        std::memcpy(&both, q + 2 * p, sizeof both);
        const __m256i by = _mm256_set1_epi32(both);
        for (int j = 0; j < count; j++) {
            const auto* at = reinterpret_cast<const __m128i*>(block + 16 * j);
            const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(at));
            sums[j] = _mm256_add_epi32(sums[j], _mm256_madd_epi16(wide, by));
        }
    }
    for (int j = 0; j < count; j++)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(products + 8 * j), sums[j]);
#endif
}

// Sums of table entries for the 32 vectors of a block of 4-bit codes, as FAISS packs them
// (pq4_fast_scan): 32 bytes for each pair of parts. The lower 16 bytes are for the first part, the
// upper ones for the second; low nibbles are codes of vectors 0, 8, 1, 9, …, 7, 15, high ones of
// those 16 further on. `tables` has 16 bytes a part. A shuffle looks up 32 codes at once.
// Bytes are added as they lie, two in one 16-bit number; what the upper byte added is subtracted in
// the end. Sums stay below 65,536.
#if LEVEL == 3
inline __m512i one_pair(const uint8_t* at) {
    return _mm512_zextsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

inline void store_folded(__m512i v, uint16_t* to) {  // both parts of both pairs
    const __m256i upper = _mm512_extracti64x4_epi64(v, 1);
    const __m256i two = _mm256_add_epi16(_mm512_castsi512_si256(v), upper);
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(to),
        _mm_add_epi16(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1)));
}

inline void look_up(const uint8_t* codes, const uint8_t* tables, int64_t pairs, uint16_t* sums) {
    const __m512i low = _mm512_set1_epi8(15);
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (int64_t p = 0; p < pairs; p += 2) {  // two pairs at a time
        const bool both = p + 1 < pairs;
        const uint8_t *from = codes + 32 * p, *rows = tables + 32 * p;
        const __m512i code = both ? _mm512_loadu_si512(from) : one_pair(from);
        const __m512i table = both ? _mm512_loadu_si512(rows) : one_pair(rows);
        const __m512i first = _mm512_shuffle_epi8(table, _mm512_and_si512(code, low));
        const __m512i upper = _mm512_and_si512(_mm512_srli_epi16(code, 4), low);
        const __m512i second = _mm512_shuffle_epi8(table, upper);
        a = _mm512_add_epi16(a, first);
        b = _mm512_add_epi16(b, _mm512_srli_epi16(first, 8));
        c = _mm512_add_epi16(c, second);
        d = _mm512_add_epi16(d, _mm512_srli_epi16(second, 8));
    }
    store_folded(_mm512_sub_epi16(a, _mm512_slli_epi16(b, 8)), sums);
    store_folded(b, sums + 8);
    store_folded(_mm512_sub_epi16(c, _mm512_slli_epi16(d, 8)), sums + 16);
    store_folded(d, sums + 24);
}
#else
inline void look_up(const uint8_t* codes, const uint8_t* tables, int64_t pairs, uint16_t* sums) {
    const __m256i low = _mm256_set1_epi8(15);
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (int64_t p = 0; p < pairs; p++) {
        const __m256i code = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 32 * p));
        const __m256i table = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tables + 32 * p));
        const __m256i first = _mm256_shuffle_epi8(table, _mm256_and_si256(code, low));
        const __m256i upper = _mm256_and_si256(_mm256_srli_epi16(code, 4), low);
        const __m256i second = _mm256_shuffle_epi8(table, upper);
        a = _mm256_add_epi16(a, first);
        b = _mm256_add_epi16(b, _mm256_srli_epi16(first, 8));
        c = _mm256_add_epi16(c, second);
        d = _mm256_add_epi16(d, _mm256_srli_epi16(second, 8));
    }
    a = _mm256_sub_epi16(a, _mm256_slli_epi16(b, 8));
    c = _mm256_sub_epi16(c, _mm256_slli_epi16(d, 8));
    const __m256i ab = _mm256_add_epi16(
        _mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
    const __m256i cd = _mm256_add_epi16(
        _mm256_permute2x128_si256(c, d, 0x20), _mm256_permute2x128_si256(c, d, 0x31));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), ab);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + 16), cd);
}
#endif

// Which of 32 sums are at least `least`: one bit each.
#if LEVEL == 3
inline uint32_t reaching(const uint16_t* sums, uint16_t least) {
    const __m512i bound = _mm512_set1_epi16(static_cast<int16_t>(least));
    return _mm512_cmpge_epu16_mask(_mm512_loadu_si512(sums), bound);
}
#else
inline uint32_t reaching(const uint16_t* sums, uint16_t least) {
    const __m256i bound = _mm256_set1_epi16(static_cast<int16_t>(least));
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + 16));
    const __m256i first = _mm256_cmpeq_epi16(_mm256_max_epu16(a, bound), a);
    const __m256i second = _mm256_cmpeq_epi16(_mm256_max_epu16(b, bound), b);
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(first, second), 0xd8);
    return static_cast<uint32_t>(_mm256_movemask_epi8(bytes));
}
#endif

#else

template <typename T>
inline void roughly(const T* x, const float* q, int64_t n, float& product, float& square) {
    float p = 0, s = 0;
    SUMMED(omp simd reduction(+ : p, s))
    for (int64_t i = 0; i < n; i++) {
        const float a = number(x[i]);
        p += a * q[i];
        s += a * a;
    }
    product = p;
    square = s;
}

template <typename T>
inline void precisely(const T* x, const double* q, int64_t n, double& product, double& square) {
    double p = 0, s = 0;
    SUMMED(omp simd reduction(+ : p, s))
    for (int64_t i = 0; i < n; i++) {
        const double a = number(x[i]);
        p += a * q[i];
        s += a * a;
    }
    product = p;
    square = s;
}

inline int32_t whole(const int8_t* x, const int16_t* q, int64_t n) {
    int32_t sum = 0;
    for (int64_t i = 0; i < n; i++) sum += int32_t(x[i]) * q[i];
    return sum;
}

inline void block_products(const int8_t* block, const int16_t* q, int64_t pairs,
                           int32_t* products) {
    std::fill(products, products + CENTROIDS, 0);
    for (int64_t p = 0; p < pairs; p++, q += 2)
        for (int64_t i = 0; i < CENTROIDS; i++, block += 2)
            products[i] += int32_t(block[0]) * q[0] + int32_t(block[1]) * q[1];
}

inline void look_up(const uint8_t* codes, const uint8_t* tables, int64_t pairs, uint16_t* sums) {
    uint16_t even[16] = {}, odd[16] = {};  // bytes of low nibbles, and of high ones
    for (int64_t p = 0; p < 2 * pairs; p++) {
        uint8_t low[16], high[16];
#if defined(__aarch64__)
        const uint8x16_t code = vld1q_u8(codes + 16 * p), table = vld1q_u8(tables + 16 * p);
        vst1q_u8(low, vqtbl1q_u8(table, vandq_u8(code, vdupq_n_u8(15))));
        vst1q_u8(high, vqtbl1q_u8(table, vshrq_n_u8(code, 4)));
#else
        for (int j = 0; j < 16; j++) {
            low[j] = tables[16 * p + (codes[16 * p + j] & 15)];
            high[j] = tables[16 * p + (codes[16 * p + j] >> 4)];
        }
#endif
        for (int j = 0; j < 16; j++) {
            even[j] = static_cast<uint16_t>(even[j] + low[j]);
            odd[j] = static_cast<uint16_t>(odd[j] + high[j]);
        }
    }
    for (int j = 0; j < 16; j++) {  // 0, 8, 1, 9, … back in order
        const int place = (j & 1) * 8 + j / 2;
        sums[place] = even[j];
        sums[16 + place] = odd[j];
    }
}

inline uint32_t reaching(const uint16_t* sums, uint16_t least) {
    uint32_t bits = 0;
    for (int j = 0; j < 32; j++) bits |= uint32_t(sums[j] >= least) << j;
    return bits;
}

#endif
