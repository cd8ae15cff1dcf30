// Searching in compiled code: the same kernels for several instruction sets, and their binding to
// Python's limited API. Addresses of FAISS's lists and of mapped rows come from Python, which keeps
// what they point to; every buffer's size is checked here.

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <vector>

#if !defined(_WIN32)
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

constexpr int64_t LINE = 64;         // bytes that memory gives at once
constexpr int64_t AHEAD = 128;       // lines to prefetch: candidates lie anywhere in memory
constexpr int64_t HEADS_AHEAD = 64;  // lines, in the first pass over candidates
constexpr int64_t ROWS_AHEAD = 4;    // rows, in the second
constexpr int64_t TOGETHER = 256;    // rows that exact search takes through all prefixes at once
constexpr int64_t FIRST = 4;         // share of a row that the first pass reads: a quarter
constexpr int64_t SORTED = 32;       // candidates that are put in order at once
constexpr int64_t CENTROIDS = 64;    // that are compared at once
constexpr int64_t NEAREST = 4;       // the anchor is at most the fourth cluster
constexpr float ZERO = 1e-12f;       // a smaller cosine is rounding error
constexpr double ERROR = 1.2e-7;     // twice the rounding of a float32 sum, for each term
constexpr float SLACK = 1e-5f;       // more than the rounding of float32 products of unit vectors
constexpr double DOUBT = 0.004;      // five standard deviations of the error of int8 products
constexpr int ROW_BITS = 48, PLACE_BITS = 30;  // of a key
constexpr int64_t MOST_LISTS = int64_t(1) << (ROW_BITS - PLACE_BITS);
constexpr uint64_t ROW = (uint64_t(1) << ROW_BITS) - 1;
constexpr uint64_t PLACE = (uint64_t(1) << PLACE_BITS) - 1;

#if defined(__aarch64__)
using Half = __fp16;
inline float number(Half x) { return x; }
#else
struct Half {
    uint16_t bits;
};

inline float number(Half x) {  // the exponent of a float16 is 112 smaller
    const uint32_t bits = uint32_t(x.bits & 0x8000) << 16 | uint32_t(x.bits & 0x7fff) << 13;
    float found;
    std::memcpy(&found, &bits, sizeof found);
    return found * 0x1p112f;
}
#endif

inline float number(float x) { return x; }

// One cluster of FAISS's inverted file: blocks of 32 vectors, and their rows.
struct List {
    const uint8_t* codes;
    const int64_t* ids;
    int64_t size;
};

// An inverted file of 4-bit codes of residuals.
struct Lists {
    int64_t dims, count, parts;  // dims of a vector, clusters, codes of a vector
    const float* rotation;       // (dims, dims), column by column, or none
    const float* centroids;      // (count, dims), of unit norm
    const float* levels;         // (parts, dims / parts, 16): what each code stands for
    float step;                  // times an int8 centroid: the centroid, nearly
    int64_t rows = 0;            // beyond the last row in a list
    std::vector<int8_t> small;   // centroids, in blocks as `block_products` takes them
    std::vector<List> at;
};

// Stored rows: some mapped parts, numbered through.
struct Rows {
    struct Part {
        const char* rows;
        int64_t first;          // its first row
        const uint8_t* good;    // whether each block of its file was verified, or none
        int64_t start;          // where rows begin in the file
        int64_t file;           // descriptor to read rows from, or -1
    };
    int64_t count, dim, bytes, block;  // rows, dims and bytes of a row, bytes of a block
    float doubt;                // by which norms may differ from 1
    bool half, read;            // numbers are float16; some part is read from its file
    std::vector<Part> parts;

    const Part& part(uint64_t row) const {
        size_t i = parts.size() - 1;
        while (i > 0 && uint64_t(parts[i].first) > row) i--;
        return parts[i];
    }
    // A row where it is mapped, or read to `buffer`, which has `bytes`.
    const void* find(uint64_t row, char* buffer) const {
        const Part& p = part(row);
        const int64_t begin = (int64_t(row) - p.first) * bytes;
#if !defined(_WIN32)
        if (p.file >= 0 && pread(int(p.file), buffer, bytes, p.start + begin) == bytes)
            return buffer;
#endif
        return p.rows + begin;
    }
    bool verified(uint64_t row) const {
        const Part& p = part(row);
        if (!p.good) return true;
        const int64_t begin = p.start + (int64_t(row) - p.first) * bytes;
        for (int64_t i = begin / block; i <= (begin + bytes - 1) / block; i++)
            if (!p.good[i]) return false;
        return true;
    }
};

// How far a search goes: codes to keep, and what `choose` takes.
struct Reach {
    int64_t keep, anchor, most;
    double reach;
};

enum class Outcome { fine, not_finite, zero, unverified };

// Buffers of a thread, so that a query allocates nothing.
struct Scratch {
    struct Near {
        float product;
        int32_t list;
        bool operator<(const Near& o) const {
            return product > o.product || (product == o.product && list < o.list);
        }
    };
    struct Bound {
        float bound;
        int32_t place;
        float product, square;
        bool operator<(const Bound& o) const {
            return bound > o.bound || (bound == o.bound && place < o.place);
        }
    };
    std::vector<float> rotated, floats, unit_query, tails;
    std::vector<int64_t> ends;
    std::vector<double> wide;
    std::vector<int16_t> whole;
    std::vector<int32_t> products;
    std::vector<uint8_t> tables;
    std::vector<uint64_t> keys;
    std::vector<Near> near;
    std::vector<Bound> bounds;
    std::vector<const void*> rows;
    std::vector<char> read;
    float unit, base, step;
};

thread_local Scratch scratch;

// The kernels of one instruction set.
struct Kernels {
    const char* name;
    void (*pairs)(bool, const void*, int64_t, const float*, int64_t, const int64_t*, int64_t,
                  int64_t, float*);
    void (*select)(const int64_t*, const float*, int64_t, int64_t, int64_t, int64_t*, float*);
    int64_t (*sift)(const int8_t*, int64_t, int64_t, const int16_t*, float, const float*, float,
                    float, int64_t*);
    int64_t (*nearest)(bool, const void*, int64_t, const float*, const int64_t*, int64_t,
                       const int64_t*, int64_t, const float*, const float*, int64_t, double, double,
                       int64_t, float*, int64_t*);
    void (*scan)(const Lists&, const float*, const Reach&, const uint8_t*, int64_t*, float*,
                 Scratch&);
    Outcome (*answer)(const Lists&, const Rows&, const float*, const Reach&, const uint8_t*,
                      int64_t, int64_t*, float*, Scratch&);
};

namespace plain {
#define LEVEL 0
#include "lanes.h"
#include "kernels.h"
#undef LEVEL
}  // namespace plain

#if defined(__x86_64__)
#if defined(__clang__)
#define FOR(set) \
    _Pragma(TEXT(clang attribute push(__attribute__((target(set))), apply_to = function)))
#define DONE _Pragma("clang attribute pop")
#else
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC's own AVX-512 headers
#define FOR(set) _Pragma("GCC push_options") _Pragma(TEXT(GCC target(set)))
#define DONE _Pragma("GCC pop_options")
#endif
#define TEXT(x) #x

FOR("avx2,fma,f16c")
namespace avx2 {
#define LEVEL 2
#include "lanes.h"
#include "kernels.h"
#undef LEVEL
}  // namespace avx2
DONE

FOR("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
namespace avx512 {
#define LEVEL 3
#include "lanes.h"
#include "kernels.h"
#undef LEVEL
}  // namespace avx512
DONE

bool has_avx2() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("f16c");
}

bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
#endif

const Kernels* use = &plain::kernels;

// A Python buffer of so many items of one size, or an error.
class Buffer {
   public:
    Buffer(PyObject* object, Py_ssize_t item, bool write = false) {
        const int flags = PyBUF_C_CONTIGUOUS | (write ? PyBUF_WRITABLE : 0);
        open_ = PyObject_GetBuffer(object, &view_, flags) == 0;
        if (open_ && (view_.len && view_.itemsize != item)) {
            PyErr_Format(PyExc_TypeError, "items of %zd bytes, not %zd", view_.itemsize, item);
            wrong_ = true;
        }
    }
    ~Buffer() {
        if (open_) PyBuffer_Release(&view_);
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    bool good() const { return open_ && !wrong_; }
    int64_t items() const { return view_.itemsize ? view_.len / view_.itemsize : 0; }
    template <typename T>
    T* at() const { return static_cast<T*>(view_.buf); }

   private:
    Py_buffer view_{};
    bool open_ = false, wrong_ = false;
};

struct Unlocked {  // the interpreter works on while this lives
    PyThreadState* state = PyEval_SaveThread();
    ~Unlocked() { PyEval_RestoreThread(state); }
};

#include "numbers.h"

PyObject* refuse(const char* what) {
    PyErr_SetString(PyExc_ValueError, what);
    return nullptr;
}

template <typename T>
void destroy(PyObject* capsule) {
    delete static_cast<T*>(PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule)));
}

// lists(rotation | None, centroids (n, d), levels (parts, d / parts, 16), where (n, 3) int64)
// -> capsule. `where` has addresses of codes and rows of each cluster, and its size.
PyObject* make_lists(PyObject*, PyObject* const* args, Py_ssize_t count) {
    long long dims, parts;
    if (count != 6) return refuse("lists takes 6 arguments");
    dims = PyLong_AsLongLong(args[0]);
    parts = PyLong_AsLongLong(args[1]);
    if (PyErr_Occurred()) return nullptr;
    const bool turned = args[2] != Py_None;
    Buffer rotation(turned ? args[2] : args[3], sizeof(float)), centroids(args[3], sizeof(float));
    if (!rotation.good() || !centroids.good()) return nullptr;
    Buffer levels(args[4], sizeof(float)), where(args[5], sizeof(int64_t));
    if (!levels.good() || !where.good()) return nullptr;
    const int64_t n = where.items() / 3;
    if (dims < 1 || parts < 1 || parts > 256 || dims % parts || n < 1 || n > MOST_LISTS ||
        where.items() != 3 * n || centroids.items() != n * dims || levels.items() != 16 * dims ||
        (turned && rotation.items() != dims * dims))
        return refuse("arrays of lists do not fit together");
    auto* lists = new Lists{};
    lists->dims = dims;
    lists->count = n;
    lists->parts = parts;
    lists->rotation = turned ? rotation.at<const float>() : nullptr;
    lists->centroids = centroids.at<const float>();
    lists->levels = levels.at<const float>();
    float most = 1e-30f;
    for (int64_t i = 0; i < n * dims; i++) most = std::max(most, std::fabs(lists->centroids[i]));
    lists->step = most / 127;
    const int64_t pairs = (dims + 1) / 2;
    lists->small.assign((n + CENTROIDS - 1) / CENTROIDS * CENTROIDS * 2 * pairs, 0);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < dims; j++) {
            const int64_t pair = i / CENTROIDS * pairs + j / 2;
            lists->small[(pair * CENTROIDS + i % CENTROIDS) * 2 + j % 2] =
                int8_t(std::lrint(lists->centroids[i * dims + j] / lists->step));
        }
    const auto* table = where.at<const int64_t>();
    for (int64_t i = 0; i < n; i++, table += 3) {
        const auto* ids = reinterpret_cast<const int64_t*>(table[1]);
        lists->at.push_back({reinterpret_cast<const uint8_t*>(table[0]), ids, table[2]});
        for (int64_t j = 0; j < table[2]; j++) lists->rows = std::max(lists->rows, ids[j] + 1);
    }
    return PyCapsule_New(lists, "lists", destroy<Lists>);
}

// rows(count, dim, half, doubt, block, where (parts, 5) int64) -> capsule. `where` has, of each
// part, the address of its rows, its first row, the address of its verified blocks or 0, where in
// its file rows begin, and a descriptor of the file or -1.
PyObject* make_rows(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count != 6) return refuse("rows takes 6 arguments");
    const int64_t number = PyLong_AsLongLong(args[0]), dim = PyLong_AsLongLong(args[1]);
    const int64_t half = PyLong_AsLongLong(args[2]);
    const double doubt = PyFloat_AsDouble(args[3]);
    const int64_t block = PyLong_AsLongLong(args[4]);
    if (PyErr_Occurred()) return nullptr;
    Buffer where(args[5], sizeof(int64_t));
    if (!where.good()) return nullptr;
    if (dim < 1 || block < 1 || where.items() < 5 || where.items() % 5)
        return refuse("rows need dims, blocks and parts");
    auto* rows = new Rows{};
    rows->count = number;
    rows->dim = dim;
    rows->half = half;
    rows->bytes = dim * (half ? 2 : 4);
    rows->block = block;
    rows->doubt = float(doubt);
    const auto* table = where.at<const int64_t>();
    for (int64_t i = 0; i < where.items() / 5; i++, table += 5) {
        rows->parts.push_back({reinterpret_cast<const char*>(table[0]), table[1],
                               reinterpret_cast<const uint8_t*>(table[2]), table[3], table[4]});
        rows->read |= table[4] >= 0;
    }
    return PyCapsule_New(rows, "rows", destroy<Rows>);
}

template <typename T>
const T* held(PyObject* capsule, const char* name) {
    return static_cast<const T*>(PyCapsule_GetPointer(capsule, name));
}

// scan(lists, x (n, d), anchor, most, reach, allowed | None, ids (n, keep), scores (n, keep))
PyObject* scan(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count != 8) return refuse("scan takes 8 arguments");
    const auto* lists = held<Lists>(args[0], "lists");
    if (!lists) return nullptr;
    Reach how{0, PyLong_AsLongLong(args[2]), PyLong_AsLongLong(args[3]), PyFloat_AsDouble(args[4])};
    if (PyErr_Occurred()) return nullptr;
    const bool masked = args[5] != Py_None;
    Buffer x(args[1], sizeof(float)), mask(masked ? args[5] : args[1], masked ? 1 : sizeof(float));
    Buffer ids(args[6], sizeof(int64_t), true), scores(args[7], sizeof(float), true);
    if (!x.good() || !mask.good() || !ids.good() || !scores.good()) return nullptr;
    const int64_t n = x.items() / lists->dims;
    how.keep = n ? ids.items() / n : 0;
    if (x.items() != n * lists->dims || ids.items() != n * how.keep ||
        scores.items() != ids.items() || (n && how.keep < 1) || how.anchor < 1 || how.most < 1 ||
        (masked && mask.items() * 8 < lists->rows))
        return refuse("arrays of scan do not fit together");
    {
        const Unlocked unlocked;
        const uint8_t* allowed = masked ? mask.at<const uint8_t>() : nullptr;
        for (int64_t i = 0; i < n; i++)
            use->scan(*lists, x.at<const float>() + i * lists->dims, how, allowed,
                      ids.at<int64_t>() + i * how.keep, scores.at<float>() + i * how.keep, scratch);
    }
    Py_RETURN_NONE;
}

// answer(lists, rows, queries (n, dim), keep, anchor, most, reach, allowed | None, ids (n, k),
// scores (n, k)) -> None, or (query, candidates): the queries before it are answered. Candidates
// are the rows (int64) whose blocks must be verified first; None: the query itself is wrong.
PyObject* answer(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count != 10) return refuse("answer takes 10 arguments");
    const auto* lists = held<Lists>(args[0], "lists");
    const auto* rows = lists ? held<Rows>(args[1], "rows") : nullptr;
    if (!rows) return nullptr;
    const Reach how{PyLong_AsLongLong(args[3]), PyLong_AsLongLong(args[4]),
                    PyLong_AsLongLong(args[5]), PyFloat_AsDouble(args[6])};
    if (PyErr_Occurred()) return nullptr;
    const bool masked = args[7] != Py_None;
    Buffer x(args[2], sizeof(float)), mask(masked ? args[7] : args[2], masked ? 1 : sizeof(float));
    Buffer ids(args[8], sizeof(int64_t), true), scores(args[9], sizeof(float), true);
    if (!x.good() || !mask.good() || !ids.good() || !scores.good()) return nullptr;
    const int64_t n = x.items() / rows->dim, k = n ? ids.items() / n : 0;
    if (x.items() != n * rows->dim || ids.items() != n * k || scores.items() != ids.items() ||
        (n && (k < 1 || how.keep < k)) || how.anchor < 1 || how.most < 1 ||
        lists->dims > rows->dim || lists->rows > rows->count ||
        (masked && mask.items() * 8 < lists->rows))
        return refuse("arrays of answer do not fit together");
    int64_t i = 0;
    Outcome outcome = Outcome::fine;
    {
        const Unlocked unlocked;
        const uint8_t* allowed = masked ? mask.at<const uint8_t>() : nullptr;
        for (; i < n; i++) {
            outcome = use->answer(*lists, *rows, x.at<const float>() + i * rows->dim, how, allowed,
                                  k, ids.at<int64_t>() + i * k, scores.at<float>() + i * k,
                                  scratch);
            if (outcome != Outcome::fine) break;
        }
    }
    if (outcome == Outcome::fine) Py_RETURN_NONE;
    if (outcome != Outcome::unverified) return Py_BuildValue("(LO)", (long long)i, Py_None);
    std::vector<int64_t> candidates;
    for (const uint64_t key : scratch.keys) candidates.push_back(int64_t(key & ROW));
    return Py_BuildValue("(Ly#)", (long long)i, reinterpret_cast<const char*>(candidates.data()),
                         Py_ssize_t(candidates.size() * sizeof(int64_t)));
}

// pairs(rows (corpus, dim), unit (n, d), ids (n, m), scores (n, m), dim, d, bytes of a number)
PyObject* pairs(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count != 7) return refuse("pairs takes 7 arguments");
    const int64_t dim = PyLong_AsLongLong(args[4]), d = PyLong_AsLongLong(args[5]);
    const int64_t item = PyLong_AsLongLong(args[6]);
    if (PyErr_Occurred()) return nullptr;
    if (item != 2 && item != 4) return refuse("rows are float16 or float32");
    Buffer rows(args[0], item), unit(args[1], sizeof(float)), ids(args[2], sizeof(int64_t));
    Buffer scores(args[3], sizeof(float), true);
    if (!rows.good() || !unit.good() || !ids.good() || !scores.good()) return nullptr;
    if (d < 1 || dim < d) return refuse("prefixes are longer than rows");
    const int64_t n = unit.items() / d, m = n ? ids.items() / n : 0, stored = rows.items() / dim;
    if (unit.items() != n * d || ids.items() != n * m || scores.items() != ids.items())
        return refuse("arrays of pairs do not fit together");
    const int64_t* some = ids.at<const int64_t>();
    for (int64_t i = 0; i < ids.items(); i++)
        if (some[i] >= stored) return refuse("a row beyond the last");
    {
        const Unlocked unlocked;
        use->pairs(item == 2, rows.at<const void>(), dim, unit.at<const float>(), d, some, n, m,
                   scores.at<float>());
    }
    Py_RETURN_NONE;
}

// select(ids (n, m), scores (n, m), best_ids (n, k), best_scores (n, k), n), k at most m
PyObject* select(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count != 5) return refuse("select takes 5 arguments");
    const int64_t n = PyLong_AsLongLong(args[4]);
    if (PyErr_Occurred()) return nullptr;
    Buffer ids(args[0], sizeof(int64_t)), scores(args[1], sizeof(float));
    Buffer best_ids(args[2], sizeof(int64_t), true), best_scores(args[3], sizeof(float), true);
    if (!ids.good() || !scores.good() || !best_ids.good() || !best_scores.good()) return nullptr;
    if (n < 1) Py_RETURN_NONE;
    const int64_t m = ids.items() / n, k = best_ids.items() / n;
    if (ids.items() != n * m || best_ids.items() != n * k || scores.items() != ids.items() ||
        best_scores.items() != best_ids.items() || k > m)
        return refuse("arrays of select do not fit together");
    {
        const Unlocked unlocked;
        use->select(ids.at<const int64_t>(), scores.at<const float>(), n, m, k,
                    best_ids.at<int64_t>(), best_scores.at<float>());
    }
    Py_RETURN_NONE;
}

// sift(codes (n, d) int8, weights (d,) int16, unit, tails (n,), tail, least, out (n,)) -> found
PyObject* sift(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count != 7) return refuse("sift takes 7 arguments");
    const float unit = float(PyFloat_AsDouble(args[2])), tail = float(PyFloat_AsDouble(args[4]));
    const float least = float(PyFloat_AsDouble(args[5]));
    if (PyErr_Occurred()) return nullptr;
    Buffer codes(args[0], 1), weights(args[1], sizeof(int16_t)), tails(args[3], sizeof(float));
    Buffer out(args[6], sizeof(int64_t), true);
    if (!codes.good() || !weights.good() || !tails.good() || !out.good()) return nullptr;
    const int64_t n = tails.items(), d = weights.items();
    if (codes.items() != n * d || out.items() != n + 1)
        return refuse("arrays of sift do not fit together");
    int64_t found;
    {
        const Unlocked unlocked;
        found = use->sift(codes.at<const int8_t>(), n, d, weights.at<const int16_t>(), unit,
                          tails.at<const float>(), tail, least, out.at<int64_t>());
    }
    return PyLong_FromLongLong(found);
}

// nearest(rows (n, dim), unit (dim,), some (m,), dims (l,), tails (l,), norms (l, n), doubt, least,
// scores (k,), ids (k,), bytes of a number) -> found
PyObject* nearest(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count != 11) return refuse("nearest takes 11 arguments");
    const double doubt = PyFloat_AsDouble(args[6]), least = PyFloat_AsDouble(args[7]);
    const int64_t item = PyLong_AsLongLong(args[10]);
    if (PyErr_Occurred()) return nullptr;
    if (item != 2 && item != 4) return refuse("rows are float16 or float32");
    Buffer rows(args[0], item), unit(args[1], sizeof(float)), some(args[2], sizeof(int64_t));
    Buffer dims(args[3], sizeof(int64_t)), tails(args[4], sizeof(float));
    Buffer norms(args[5], sizeof(float));
    Buffer scores(args[8], sizeof(float), true), ids(args[9], sizeof(int64_t), true);
    if (!rows.good() || !unit.good() || !some.good() || !dims.good() || !tails.good() ||
        !norms.good() || !scores.good() || !ids.good())
        return nullptr;
    const int64_t dim = unit.items(), m = some.items(), levels = dims.items(), k = ids.items();
    if (dim < 1) return refuse("a query without numbers");
    const int64_t n = rows.items() / dim;
    const int64_t* lengths = dims.at<const int64_t>();
    if (rows.items() != n * dim || tails.items() != levels || norms.items() != levels * n ||
        scores.items() != k || (levels && (lengths[0] < 1 || lengths[levels - 1] > dim)) ||
        !std::is_sorted(lengths, lengths + levels))
        return refuse("arrays of nearest do not fit together");
    for (int64_t i = 0; i < m; i++)
        if (some.at<const int64_t>()[i] < 0 || some.at<const int64_t>()[i] >= n)
            return refuse("a row beyond the last");
    int64_t found;
    {
        const Unlocked unlocked;
        found = use->nearest(item == 2, rows.at<const void>(), dim, unit.at<const float>(),
                             some.at<const int64_t>(), m, lengths, levels, tails.at<const float>(),
                             norms.at<const float>(), n, doubt, least, k, scores.at<float>(),
                             ids.at<int64_t>());
    }
    return PyLong_FromLongLong(found);
}

// numbers(text) -> float32 of a list of numbers in JSON, as bytes; None: it is something else.
PyObject* numbers(PyObject*, PyObject* const* args, Py_ssize_t count) {
    char* text;
    Py_ssize_t size;
    if (count != 1) return refuse("numbers takes a text");
    if (PyBytes_AsStringAndSize(args[0], &text, &size) < 0) return nullptr;
    const Py_ssize_t most = std::count(text, text + size, ',') + 1;
    PyObject* const found = PyBytes_FromStringAndSize(nullptr, most * Py_ssize_t(sizeof(float)));
    if (found == nullptr) return nullptr;
    float* const rows = reinterpret_cast<float*>(PyBytes_AsString(found));
    if (read_list(text, text + size, rows) == most) return found;
    Py_DECREF(found);
    Py_RETURN_NONE;
}

// What this processor can run, the best last.
std::vector<const Kernels*> runnable() {
    std::vector<const Kernels*> found{&plain::kernels};
#if defined(__x86_64__)
    if (has_avx2()) found.push_back(&avx2::kernels);
    if (has_avx512()) found.push_back(&avx512::kernels);
#endif
    return found;
}

// instructions(name | None) -> name: choose a set, for tests; or the one in use.
PyObject* instructions(PyObject*, PyObject* const* args, Py_ssize_t count) {
    if (count == 1) {
        const auto all = runnable();
        const auto named = std::find_if(all.begin(), all.end(), [&](const Kernels* kernels) {
            return PyUnicode_CompareWithASCIIString(args[0], kernels->name) == 0;
        });
        if (named == all.end()) return refuse("this processor does not have these instructions");
        use = *named;
    }
    return PyUnicode_FromString(use->name);
}

#define FAST(name, function) {name, reinterpret_cast<PyCFunction>( \
    reinterpret_cast<void (*)()>(function)), METH_FASTCALL, nullptr}

PyMethodDef methods[] = {
    FAST("lists", make_lists), FAST("rows", make_rows), FAST("scan", scan),
    FAST("answer", answer),    FAST("pairs", pairs),    FAST("select", select),
    FAST("sift", sift),        FAST("nearest", nearest), FAST("numbers", numbers),
    FAST("instructions", instructions),
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "compiled", nullptr, -1, methods,
                      nullptr,               nullptr,   nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_compiled() {
    use = runnable().back();
    return PyModule_Create(&module);
}
