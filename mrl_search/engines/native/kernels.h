// What the package computes in compiled code, for one instruction set: the names of `lanes.h` are
// those of the namespace that includes this file. Buffers are checked by `binding.cpp`.

template <typename T>
inline void fetch(const T* row, int64_t from, int64_t to) {
    const char* start = reinterpret_cast<const char*>(row + from);
    const char* stop = reinterpret_cast<const char*>(row + to);
    for (; start < stop; start += LINE) __builtin_prefetch(start, 0, 2);
}

// A cosine as it is answered: rounding errors are 0, so that ties do not depend on orders of sums.
inline float settled(double product, double square) {
    const float cosine = square > 0 ? static_cast<float>(product / std::sqrt(square)) : 0.0f;
    return std::fabs(cosine) < ZERO ? 0.0f : cosine;
}

template <typename T>
inline void pairs_of(const T* rows, int64_t dim, const float* unit, int64_t d, const int64_t* ids,
                     int64_t n, int64_t m, float* scores) {
    std::vector<double> wide(d);
    const int64_t line = LINE / int64_t(sizeof(T)), ahead = std::max<int64_t>(1, AHEAD * line / d);
    for (int64_t i = 0; i < n; i++, ids += m, scores += m, unit += d) {
        for (int64_t j = 0; j < d; j++) wide[j] = unit[j];
        for (int64_t j = -ahead; j < m; j++) {
            if (j + ahead < m && ids[j + ahead] >= 0) fetch(rows + ids[j + ahead] * dim, 0, d);
            if (j < 0) continue;
            if (ids[j] < 0) {
                scores[j] = -INFINITY;
                continue;
            }
            double product, square;
            precisely(rows + ids[j] * dim, wide.data(), d, product, square);
            scores[j] = settled(product, square);
        }
    }
}

// Insert into the best k, higher scores first, then lower ids; `count` of them are there.
inline void insert(float* scores, int64_t* ids, int64_t k, int64_t& count, float score,
                   int64_t id) {
    const auto before = [&](int64_t i) {
        return scores[i] > score || (scores[i] == score && ids[i] < id);
    };
    if (count == k && (k == 0 || before(k - 1))) return;
    int64_t place = count < k ? count++ : k - 1;
    for (; place > 0 && !before(place - 1); place--) {
        scores[place] = scores[place - 1];
        ids[place] = ids[place - 1];
    }
    scores[place] = score;
    ids[place] = id;
}

inline void select(const int64_t* ids, const float* scores, int64_t n, int64_t m, int64_t k,
                   int64_t* best_ids, float* best_scores) {
    for (int64_t i = 0; i < n; i++, ids += m, scores += m, best_ids += k, best_scores += k) {
        int64_t count = 0;
        for (int64_t j = 0; j < m; j++) insert(best_scores, best_ids, k, count, scores[j], ids[j]);
    }
}

inline int64_t sift(const int8_t* codes, int64_t n, int64_t d, const int16_t* weights, float unit,
                    const float* tails, float tail, float least, int64_t* out) {
    int64_t found = 0, even = d & ~int64_t(31);
    for (int64_t i = 0; i < n; i++, codes += d) {
        int32_t sum = whole(codes, weights, even);
        for (int64_t j = even; j < d; j++) sum += int32_t(codes[j]) * weights[j];
        out[found] = i;
        found += static_cast<float>(sum) * unit + tail * tails[i] >= least;
    }
    return found;
}

// The k nearest among some rows, of those whose cosine may reach `least`. Longer and longer prefixes
// rule rows out, by bounds whose rounding error is at most ERROR for each dim that was added up. A
// few rows at a time go through all prefixes, so that what is left of them comes from the cache.
template <typename T>
inline int64_t nearest_of(const T* rows, int64_t dim, const float* unit, const int64_t* some,
                          int64_t m, const int64_t* dims, int64_t levels, const float* tails,
                          const float* norms, int64_t count, double doubt, double least, int64_t k,
                          float* scores, int64_t* ids) {
    struct Left {
        int64_t row;
        float product, square;
    };
    Left left[TOGETHER];
    const std::vector<double> wide(unit, unit + dim);
    const int64_t line = LINE / int64_t(sizeof(T));
    int64_t found = 0;
    for (int64_t first = 0; first < m; first += TOGETHER) {
        int64_t total = std::min(TOGETHER, m - first);
        for (int64_t j = 0; j < total; j++) left[j] = {some[first + j], 0, 0};
        for (int64_t level = 0, start = 0; level <= levels; level++) {
            const int64_t stop = level < levels ? dims[level] : dim, length = stop - start;
            const int64_t ahead = std::max<int64_t>(1, AHEAD * line / length);
            const double tail = level < levels ? tails[level] : 0;
            const double enough = least - ERROR * double(stop);
            int64_t kept = 0;
            for (int64_t j = -ahead; j < total; j++) {
                if (j + ahead < total) fetch(rows + left[j + ahead].row * dim, start, stop);
                if (j < 0) continue;
                Left one = left[j];
                float product, square;
                roughly(rows + one.row * dim + start, unit + start, length, product, square);
                one.product += product;
                one.square += square;
                const double norm = level < levels ? norms[level * count + one.row] : 0;
                const double cosine = one.square > 0 ? one.product / std::sqrt(one.square) : 0;
                const double sign = cosine > 0 ? doubt : -doubt;
                const double head = std::sqrt(std::max(1 - norm * norm + sign, 0.0));
                left[kept] = one;
                kept += head * cosine + tail * norm >= enough;
            }
            total = kept;
            start = stop;
        }
        for (int64_t j = 0; j < total; j++) {
            double product, square;
            precisely(rows + left[j].row * dim, wide.data(), dim, product, square);
            insert(scores, ids, k, found, settled(product, square), left[j].row);
        }
    }
    return found;
}

inline float dot(const float* x, const float* y, int64_t n) {
    float sum = 0;
    SUMMED(omp simd reduction(+ : sum))
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

// Products of `x` with the int8 centroids, in units of the same size for all.
inline void compare(const Lists& lists, const float* x, Scratch& s) {
    float most = 1e-30f;
    for (int64_t i = 0; i < lists.dims; i++) most = std::max(most, std::fabs(x[i]));
    const float limit = std::min(32767.0f, float(1 << 30) / (127.0f * float(lists.dims)));
    const float step = most / limit;  // no sum overflows
    const int64_t pairs = (lists.dims + 1) / 2, size = 2 * CENTROIDS * pairs;
    s.whole.assign(2 * pairs, 0);
    for (int64_t i = 0; i < lists.dims; i++) s.whole[i] = int16_t(std::lrint(x[i] / step));
    const int64_t blocks = int64_t(lists.small.size()) / size;
    s.products.resize(blocks * CENTROIDS);
    for (int64_t i = 0; i < blocks; i++)
        block_products(lists.small.data() + i * size, s.whole.data(), pairs,
                       s.products.data() + i * CENTROIDS);
    s.unit = step * lists.step;
}

// The clusters to visit, nearest first, with their products with `x` in float32: those whose
// squared distance is at most `reach` times that of the anchor, one of the nearest; at most `most`.
// Products of int8 choose the ones to compute in float32, with a margin for their errors.
inline void choose(const Lists& lists, const float* x, const Reach& how, Scratch& s) {
    compare(lists, x, s);
    const float norm = dot(x, x, lists.dims);
    const int64_t anchor = std::min(NEAREST, how.anchor);
    int32_t top[NEAREST];
    std::fill(top, top + NEAREST, INT32_MIN);
    for (int64_t i = 0; i < lists.count; i++) {
        const int32_t product = s.products[i];
        if (product <= top[anchor - 1] || !lists.at[i].size) continue;
        int64_t place = anchor - 1;
        for (; place > 0 && top[place - 1] < product; place--) top[place] = top[place - 1];
        top[place] = product;
    }
    s.near.clear();
    if (top[0] == INT32_MIN) return;  // every cluster is empty
    const auto distance = [&](double product) { return std::max(norm + 1 - 2 * product, 0.0); };
    int64_t last = anchor - 1;
    while (top[last] == INT32_MIN) last--;  // fewer clusters than that have vectors
    const double about = double(top[last]) * s.unit;
    const double far = std::isinf(how.reach) ? INFINITY : how.reach * distance(about - DOUBT);
    const double least = ((norm + 1 - far) / 2 - DOUBT) / s.unit;
    const int32_t limit = least > INT32_MIN ? int32_t(std::min(least, 2e9)) : INT32_MIN;
    for (int64_t i = 0; i < lists.count; i++) {
        if (s.products[i] < limit || !lists.at[i].size) continue;
        fetch(lists.centroids + i * lists.dims, 0, lists.dims);
        s.near.push_back({0, int32_t(i)});
    }
    for (auto& near : s.near)
        near.product = dot(x, lists.centroids + near.list * lists.dims, lists.dims);
    std::sort(s.near.begin(), s.near.end());
    if (int64_t(s.near.size()) > how.most) s.near.resize(how.most);
    const double exactly = s.near[std::min<int64_t>(anchor, s.near.size()) - 1].product;
    const double farthest = std::isinf(how.reach) ? INFINITY : how.reach * distance(exactly);
    while (!s.near.empty() && distance(s.near.back().product) > farthest) s.near.pop_back();
}

// Tables of one byte for each part and code, so that sums of bytes order as inner products do:
// product = base + sum * step. The bias of a cluster is a number of steps, too.
inline void tabulate(const Lists& lists, const float* x, Scratch& s) {
    const int64_t parts = lists.parts, width = lists.dims / parts;
    s.floats.resize(parts * 16);
    float widest = 1e-30f, all = 0;
    s.base = 0;
    for (int64_t part = 0; part < parts; part++) {
        float* row = &s.floats[part * 16];
        const float* levels = lists.levels + part * 16 * width;
        for (int64_t j = 0; j < 16; j++) row[j] = 0;
        for (int64_t i = 0; i < width; i++)  // levels are stored dim by dim
            for (int64_t j = 0; j < 16; j++) row[j] += x[part * width + i] * levels[i * 16 + j];
        float least = row[0], most = row[0];
        SUMMED(omp simd reduction(min : least) reduction(max : most))
        for (int64_t j = 0; j < 16; j++) {
            least = std::min(least, row[j]);
            most = std::max(most, row[j]);
        }
        for (int64_t j = 0; j < 16; j++) row[j] -= least;
        widest = std::max(widest, most - least);
        all += most - least;
        s.base += least;
    }
    const float spread = s.near.front().product - s.near.back().product;
    // sums of bytes and bias must stay below 65,536; every rounding may add a half
    const float room = 65535.0f - 0.5f * float(parts) - 1;
    const float scale = std::min(255.0f / widest, room / (all + spread));
    s.tables.assign((parts + 1) / 2 * 32, 0);
    for (int64_t i = 0; i < parts * 16; i++) s.tables[i] = uint8_t(s.floats[i] * scale + 0.5f);
    s.step = 1 / scale;
    s.base += s.near.back().product;
}

// The best `keep` codes of the clusters in `s.near`, as keys: 65,535 minus the sum, then the place
// of the code, so that the smallest keys are the best. Keys are collected, and whenever there are
// twice as many as wanted, the better half stays: that is faster than a heap. Rows are looked up
// for what is left: their numbers lie elsewhere in memory.
inline void visit(const Lists& lists, int64_t keep, const uint8_t* allowed, Scratch& s) {
    const int64_t pairs = (lists.parts + 1) / 2, bytes = 32 * pairs;
    const size_t full = size_t(keep) * 2 + 64;
    s.keys.clear();
    uint32_t worst = 0;  // the sum that a code must reach
    const auto cut = [&]() {
        std::nth_element(s.keys.begin(), s.keys.begin() + keep - 1, s.keys.end());
        s.keys.resize(keep);
        worst = 65535 - uint32_t(s.keys.back() >> ROW_BITS);
    };
    for (size_t number = 0; number < s.near.size(); number++) {
        const List& list = lists.at[s.near[number].list];
        const List* next =
            number + 1 < s.near.size() ? &lists.at[s.near[number + 1].list] : nullptr;
        const uint32_t bias =
            uint32_t((s.near[number].product - s.near.back().product) / s.step + 0.5f);
        for (int64_t start = 0, block = 0; start < list.size; start += 32, block++) {
            if (next && block * 32 < next->size)  // memory gives the next cluster meanwhile
                fetch(next->codes + block * bytes, 0, bytes);
            uint16_t sums[32];
            look_up(list.codes + block * bytes, s.tables.data(), pairs, sums);
            const uint32_t least = worst > bias ? worst - bias : 0;
            if (least > 65535) continue;
            uint32_t bits = reaching(sums, uint16_t(least));
            if (list.size - start < 32) bits &= (1u << (list.size - start)) - 1;
            for (; bits; bits &= bits - 1) {
                const int64_t place = start + __builtin_ctz(bits);
                if (allowed) {
                    const int64_t row = list.ids[place];
                    if (!(allowed[row >> 3] >> (row & 7) & 1)) continue;
                }
                __builtin_prefetch(list.ids + place);
                s.keys.push_back(uint64_t(65535 - (sums[place - start] + bias)) << ROW_BITS |
                                 uint64_t(number) << PLACE_BITS | uint64_t(place));
            }
            if (s.keys.size() >= full) cut();
        }
    }
    if (int64_t(s.keys.size()) > keep) cut();
    const auto id = [&](uint64_t key) {
        const uint64_t number = (key & ROW) >> PLACE_BITS;
        return lists.at[s.near[number].list].ids + (key & PLACE);
    };
    for (uint64_t& key : s.keys) key = (key & ~ROW) | uint64_t(*id(key));
}

// Rotate a unit prefix, choose clusters, and leave the best `keep` codes in `s.keys`.
inline void shortlist(const Lists& lists, const float* prefix, const Reach& how,
                      const uint8_t* allowed, Scratch& s) {
    const float* x = prefix;
    if (lists.rotation) {
        s.rotated.assign(lists.dims, 0);
        for (int64_t i = 0; i < lists.dims; i++) {  // columns, so that sums need no reduction
            const float* column = lists.rotation + i * lists.dims;
            float* to = s.rotated.data();
            for (int64_t j = 0; j < lists.dims; j++) to[j] += prefix[i] * column[j];
        }
        x = s.rotated.data();
    }
    choose(lists, x, how, s);
    s.keys.clear();
    if (s.near.empty()) return;
    tabulate(lists, x, s);
    visit(lists, how.keep, allowed, s);
}

// Fill ids and scores (keep) with the shortlist of a unit prefix, best first.
inline void scan(const Lists& lists, const float* prefix, const Reach& how, const uint8_t* allowed,
                 int64_t* ids, float* scores, Scratch& s) {
    shortlist(lists, prefix, how, allowed, s);
    std::sort(s.keys.begin(), s.keys.end());
    const int64_t found = s.keys.size();
    for (int64_t i = 0; i < how.keep; i++) {
        ids[i] = i < found ? int64_t(s.keys[i] & ROW) : -1;
        const float sum = i < found ? float(65535 - (s.keys[i] >> ROW_BITS)) : 0;
        scores[i] = i < found ? s.base + sum * s.step : -INFINITY;
    }
}

// The largest cosine of a row of which some dims were read, with their product with the unit query
// and the square of their norm. The rest adds at most the product of the norms of both tails
// (Cauchy-Schwarz); norms of stored rows are 1 within `doubt`.
inline float highest(float product, float square, float tail, float doubt) {
    const float longest = (1 + doubt) * (1 + doubt);
    const float high = product + tail * std::sqrt(std::max(0.0f, longest - square));
    return high / (high > 0 ? 1 - doubt : 1 + doubt) + SLACK;
}

// The best k of the rows in `s.keys` by the cosine of all dims; the answer is the same as from
// reading all rows whole. First, `head` dims of each are read. Then rows go on in falling order of
// their bounds, in steps of twice as many dims, until none can be among the best k. What may be is
// scored in float64.
template <typename T>
inline int64_t rank(const Rows& rows, const float* unit, int64_t head, int64_t k, int64_t* ids,
                    float* scores, Scratch& s) {
    const int64_t dim = rows.dim, count = s.keys.size();
    s.wide.assign(unit, unit + dim);
    s.rows.resize(count);
    s.bounds.resize(count);
    if (rows.read) s.read.resize(count * rows.bytes);
    for (int64_t i = 0; i < count; i++)
        s.rows[i] = rows.find(s.keys[i] & ROW, s.read.data() + i * rows.bytes);
    const auto row = [&](int64_t i) { return static_cast<const T*>(s.rows[i]); };
    s.ends.clear();
    s.tails.clear();
    for (int64_t end = head; end < dim; end *= 2) {
        s.ends.push_back(end);
        s.tails.push_back(std::sqrt(dot(unit + end, unit + end, dim - end)) + SLACK);
    }
    const int64_t line = LINE / int64_t(sizeof(T));
    const int64_t early = std::max<int64_t>(1, HEADS_AHEAD * line / head);
    const float tail = s.tails.empty() ? 0 : s.tails[0];
    for (int64_t i = -early; i < count; i++) {
        if (i + early < count) fetch(row(i + early), 0, head);
        if (i < 0) continue;
        float product, square;
        roughly(row(i), unit, head, product, square);
        s.bounds[i] = {highest(product, square, tail, rows.doubt), int32_t(i), product, square};
    }
    int64_t found = 0, sorted = 0;
    for (int64_t i = -ROWS_AHEAD; i < count; i++) {
        const int64_t next = i + ROWS_AHEAD;
        if (next < count) {
            if (next == sorted) {  // few rows are read: sort some at a time
                const auto begin = s.bounds.begin() + sorted;
                sorted = std::min<int64_t>(count, sorted + SORTED);
                const auto end = s.bounds.begin() + sorted;
                if (sorted < count) std::nth_element(begin, end - 1, s.bounds.end());
                std::sort(begin, end);
            }
            fetch(row(s.bounds[next].place), head, dim);
        }
        if (i < 0) continue;
        auto [bound, place, product, square] = s.bounds[i];
        if (found == k && bound < scores[k - 1]) break;
        for (size_t step = 0; found == k && step < s.ends.size() && bound >= scores[k - 1];) {
            const int64_t start = s.ends[step++];
            const bool last = step == s.ends.size();
            float more, squares;
            roughly(row(place) + start, unit + start, (last ? dim : s.ends[step]) - start, more,
                    squares);
            product += more;
            square += squares;
            bound = last ? product / std::sqrt(square) + SLACK
                         : highest(product, square, s.tails[step], rows.doubt);
        }
        if (found == k && bound < scores[k - 1]) continue;
        double exactly, norm;
        precisely(row(place), s.wide.data(), dim, exactly, norm);
        insert(scores, ids, k, found, settled(exactly, norm), int64_t(s.keys[place] & ROW));
    }
    return found;
}

// A query from its numbers to its answers. Returns what is wrong with it, if anything.
inline Outcome answer(const Lists& lists, const Rows& rows, const float* query, const Reach& how,
                      const uint8_t* allowed, int64_t k, int64_t* ids, float* scores, Scratch& s) {
    const int64_t dim = rows.dim, head = lists.dims;
    double first = 0, rest = 0;
    SUMMED(omp simd reduction(+ : first))
    for (int64_t i = 0; i < head; i++) first += double(query[i]) * query[i];
    SUMMED(omp simd reduction(+ : rest))
    for (int64_t i = head; i < dim; i++) rest += double(query[i]) * query[i];
    const double norm = std::sqrt(first + rest);  // in float64 no float32 over- or underflows
    if (!std::isfinite(norm)) return Outcome::not_finite;
    if (norm == 0) return Outcome::zero;
    const double short_norm = first > 0 ? std::sqrt(first) : 1;  // a prefix of zeros stays zero
    s.unit_query.resize(dim + head);
    float *unit = s.unit_query.data(), *prefix = unit + dim;
    for (int64_t i = 0; i < dim; i++) unit[i] = float(query[i] / norm);
    for (int64_t i = 0; i < head; i++) prefix[i] = float(query[i] / short_norm);
    shortlist(lists, prefix, how, allowed, s);
    for (const uint64_t key : s.keys)
        if (!rows.verified(key & ROW)) return Outcome::unverified;
    const int64_t first_dims = std::max(head, dim / FIRST);
    const int64_t found = rows.half ? rank<Half>(rows, unit, first_dims, k, ids, scores, s)
                                    : rank<float>(rows, unit, first_dims, k, ids, scores, s);
    std::fill(ids + found, ids + k, -1);
    std::fill(scores + found, scores + k, -INFINITY);
    return Outcome::fine;
}

inline void pairs(bool half, const void* rows, int64_t dim, const float* unit, int64_t d,
                  const int64_t* ids, int64_t n, int64_t m, float* scores) {
    if (half) pairs_of(static_cast<const Half*>(rows), dim, unit, d, ids, n, m, scores);
    else pairs_of(static_cast<const float*>(rows), dim, unit, d, ids, n, m, scores);
}

inline int64_t nearest(bool half, const void* rows, int64_t dim, const float* unit,
                       const int64_t* some, int64_t m, const int64_t* dims, int64_t levels,
                       const float* tails, const float* norms, int64_t count, double doubt,
                       double least, int64_t k, float* scores, int64_t* ids) {
    return half ? nearest_of(static_cast<const Half*>(rows), dim, unit, some, m, dims, levels,
                             tails, norms, count, doubt, least, k, scores, ids)
                : nearest_of(static_cast<const float*>(rows), dim, unit, some, m, dims, levels,
                             tails, norms, count, doubt, least, k, scores, ids);
}

const Kernels kernels = {NAME, pairs, select, sift, nearest, scan, answer};
