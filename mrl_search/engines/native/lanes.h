// The steps that need a processor's own instructions, for the instruction set LEVEL: 2 is AVX2 with
// FMA and F16C; 0 is whatever the compiler makes of plain loops, and NEON's table look-up on ARM.
// Included once for each level, inside a namespace of its own.

// Sums of several running totals, so that an addition need not wait for the one before it.
#define SUMMED(...) _Pragma(#__VA_ARGS__)

#if LEVEL == 2

inline __m256 eight(const Half* x) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
}

inline __m256 eight(const float* x) { return _mm256_loadu_ps(x); }

inline float total(__m256 v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

inline double total(__m256d v) {
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

// Inner product with q and square of the norm of the first n numbers of a row, in float32.
template <typename T>
inline void roughly(const T* x, const float* q, int64_t n, float& product, float& square) {
    __m256 p0 = _mm256_setzero_ps(), p1 = p0, s0 = p0, s1 = p0;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256 a = eight(x + i), b = eight(x + i + 8);
        p0 = _mm256_fmadd_ps(a, _mm256_loadu_ps(q + i), p0);
        p1 = _mm256_fmadd_ps(b, _mm256_loadu_ps(q + i + 8), p1);
        s0 = _mm256_fmadd_ps(a, a, s0);
        s1 = _mm256_fmadd_ps(b, b, s1);
    }
    product = total(_mm256_add_ps(p0, p1));
    square = total(_mm256_add_ps(s0, s1));
    for (; i < n; i++) {
        const float a = number(x[i]);
        product += a * q[i];
        square += a * a;
    }
}

// The same in float64: of float32 numbers, every product is exact.
template <typename T>
inline void precisely(const T* x, const double* q, int64_t n, double& product, double& square) {
    __m256d p0 = _mm256_setzero_pd(), p1 = p0, s0 = p0, s1 = p0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 both = eight(x + i);
        const __m256d a = _mm256_cvtps_pd(_mm256_castps256_ps128(both));
        const __m256d b = _mm256_cvtps_pd(_mm256_extractf128_ps(both, 1));
        p0 = _mm256_fmadd_pd(a, _mm256_loadu_pd(q + i), p0);
        p1 = _mm256_fmadd_pd(b, _mm256_loadu_pd(q + i + 4), p1);
        s0 = _mm256_fmadd_pd(a, a, s0);
        s1 = _mm256_fmadd_pd(b, b, s1);
    }
    product = total(_mm256_add_pd(p0, p1));
    square = total(_mm256_add_pd(s0, s1));
    for (; i < n; i++) {
        const double a = number(x[i]);
        product += a * q[i];
        square += a * a;
    }
}

// Sum of n products, n a multiple of 16: int8 is widened, then pairs are multiplied and added.
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

// Sums of table entries for the 32 vectors of a block of 4-bit codes, as FAISS packs them
// (pq4_fast_scan): 32 bytes for each pair of parts. The lower 16 bytes are for the first part, the
// upper ones for the second; low nibbles are codes of vectors 0, 8, 1, 9, …, 7, 15, high ones of
// those 16 further on. `tables` has 16 bytes a part. A shuffle looks up 32 codes at once.
// Bytes are added as they lie, two in one 16-bit number; what the upper byte added is subtracted in
// the end. Sums stay below 65,536.
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

// Which of 32 sums are at least `least`: one bit each.
inline uint32_t reaching(const uint16_t* sums, uint16_t least) {
    const __m256i bound = _mm256_set1_epi16(static_cast<int16_t>(least));
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums));
    const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums + 16));
    const __m256i first = _mm256_cmpeq_epi16(_mm256_max_epu16(a, bound), a);
    const __m256i second = _mm256_cmpeq_epi16(_mm256_max_epu16(b, bound), b);
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(first, second), 0xd8);
    return static_cast<uint32_t>(_mm256_movemask_epi8(bytes));
}

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
