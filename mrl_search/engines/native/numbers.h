// Lists of numbers in JSON to float32: what Python's json and numpy give, without an object a number.

constexpr int DIGITS = 19;                     // that 64 bits hold
constexpr uint64_t EXACT = uint64_t(1) << 53;  // whole numbers that a double holds
constexpr int TENS = 22;                       // powers of ten that a double holds
constexpr int FAR = 10'000;                    // a power of ten that no float has
constexpr uint64_t LACKED = (uint64_t(1) << 29) - 1;  // bits that a float lacks of a double
constexpr uint64_t HALF = uint64_t(1) << 28;   // in these bits: where rounding turns
constexpr uint64_t NEAR = 8;                   // more than two roundings are off
constexpr double POWERS[TENS + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                     1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                     1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

inline bool is_digit(char c) { return c >= '0' && c <= '9'; }

inline bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// Whether eight bytes are digits; then their number (Johnny Lee, "Fast numeric string to int").
inline bool eight_digits(const char* at, uint64_t& found) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    constexpr uint64_t HIGH = 0xF0F0F0F0F0F0F0F0, ZEROS = 0x3030303030303030;
    uint64_t bytes;
    std::memcpy(&bytes, at, sizeof bytes);
    if ((bytes & HIGH) != ZEROS || ((bytes + 0x0606060606060606) & HIGH) != ZEROS) return false;
    bytes = (bytes & ~HIGH) * 2561 >> 8;
    bytes = (bytes & 0x00FF00FF00FF00FF) * 6553601 >> 16;
    found = (bytes & 0x0000FFFF0000FFFF) * 42949672960001 >> 32;
    return true;
#else
    return false;
#endif
}

// Adds digits to `whole`; it may overflow if they are more than `DIGITS`.
inline const char* read_digits(const char* at, const char* end, uint64_t& whole) {
    for (uint64_t eight; end - at >= 8 && eight_digits(at, eight); at += 8)
        whole = whole * 100'000'000 + eight;
    for (; is_digit(*at); ++at) whole = whole * 10 + uint64_t(*at - '0');
    return at;
}

// Whether `value`, a little off, rounds to the same float as the number it stands for.
inline bool settles(double value) {
    if (value < 1e-37 || value > 3e38) return false;
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const uint64_t rest = bits & LACKED;
    return rest + NEAR < HALF || rest > HALF + NEAR;
}

// A number of JSON at `at`, which moves behind it; false: there is none, or it is no float.
inline bool read_number(const char*& at, const char* end, float& found) {
    const char* const start = at;
    at += *start == '-';
    const char* const first = at;
    uint64_t whole = 0;
    at = read_digits(at, end, whole);
    int64_t digits = at - first, ten = 0;
    if (digits == 0 || (*first == '0' && digits > 1)) return false;
    if (*at == '.') {
        const char* const point = ++at;
        if (whole == 0) {
            while (*at == '0') ++at;
            digits = 0;
        }
        const char* const rest = at;
        at = read_digits(at, end, whole);
        if (at == point) return false;
        digits += at - rest;
        ten = point - at;
    }
    if (*at == 'e' || *at == 'E') {
        ++at;
        const bool small = *at == '-';
        at += small || *at == '+';
        if (!is_digit(*at)) return false;
        int64_t power = 0;
        for (; is_digit(*at); ++at) power = std::min<int64_t>(power * 10 + (*at - '0'), FAR);
        ten += small ? -power : power;
    }
    double value = 0;
    bool sure = digits <= DIGITS && ten >= -TENS && ten <= TENS;
    if (sure) {
        value = ten < 0 ? double(whole) / POWERS[-ten] : double(whole) * POWERS[ten];
        sure = whole <= EXACT || settles(value);
        value = *start == '-' ? -value : value;
    }
    if (!sure) {  // rounded right, but slow
        char* stop = nullptr;
        value = PyOS_string_to_double(start, &stop, nullptr);
        if (stop != at) {
            PyErr_Clear();
            return false;
        }
    }
    found = float(value);
    return std::isfinite(found);
}

// A list of numbers in JSON, and nothing else: how many; -1 if it is anything else.
inline int64_t read_list(const char* at, const char* end, float* found) {
    const float* const first = found;
    const auto skip = [&at] {
        while (is_space(*at)) ++at;
    };
    char next = ',';
    if (*at++ != '[') return -1;
    for (; next == ','; next = *at++) {
        skip();
        if (!read_number(at, end, *found++)) return -1;
        skip();
    }
    return next == ']' && at == end ? found - first : -1;
}
