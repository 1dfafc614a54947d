/*
 * threads.cc - a C++ program for `make check-preload`: threads, exceptions,
 * containers, every form of new and delete, the C functions beside them.
 *
 * It links no HAKMEM: the preloaded library must serve it. It prints results
 * that do not depend on timing, and "all is well" at the end. A wrong result
 * ends it with status 1 and the line that found it.
 */
#include <array>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

namespace
{

[[noreturn]] void fail(int line, const char *what)
{
    std::fprintf(stderr, "threads.cc:%d: not so: %s\n", line, what);
    std::_Exit(1);
}
#define CHECK(condition)                                                       \
    (static_cast<bool>(condition) ? (void)0 : fail(__LINE__, #condition))

constexpr unsigned kThreads = 4;

std::uint32_t next(std::uint32_t &state)
{
    return (state = state * 1103515245u + 12345u) >> 8;
}

bool aligned(const void *p, std::size_t alignment)
{
    return reinterpret_cast<std::uintptr_t>(p) % alignment == 0;
}

/* Runs work(0) .. work(kThreads - 1) each in a thread; their sum. */
std::uint64_t in_threads(const std::function<std::uint64_t(unsigned)> &work)
{
    std::vector<std::future<std::uint64_t>> results;
    for (unsigned i = 0; i < kThreads; i++)
        results.push_back(std::async(std::launch::async, work, i));
    std::uint64_t sum = 0;
    for (auto &result : results)
        sum += result.get();
    return sum;
}

/* ---- containers ---------------------------------------------------------- */

std::uint64_t containers(unsigned seed)
{
    std::uint32_t state = seed + 1;
    std::map<std::string, std::vector<int>> tree;
    std::unordered_map<int, std::string> table;
    std::list<std::string> list;
    std::deque<std::array<int, 5>> deque;
    for (int i = 0; i < 40000; i++) {
        const int key = static_cast<int>(next(state) % 3000);
        tree["a rather long key, number " + std::to_string(key)].push_back(i);
        table[key] += static_cast<char>('a' + key % 26);
        if (table[key].size() > 60)
            table.erase(key);
        list.emplace_back(next(state) % 200, 'x');
        if (list.size() > 500)
            list.pop_front();
        deque.push_back({i, i, i, i, key});
        if (key % 3 == 0)
            deque.pop_front();
    }
    std::uint64_t sum = deque.size();
    for (const auto &[key, values] : tree)
        sum += key.size() + std::accumulate(values.begin(), values.end(), 0ull);
    for (const auto &[key, text] : table)
        sum += static_cast<unsigned>(key) * text.size();
    for (const auto &text : list)
        sum += text.size();
    return sum;
}

/* ---- exceptions ---------------------------------------------------------- */

struct Deep : std::runtime_error {
    Deep(const std::string &what, int depth)
        : std::runtime_error(what), trail(static_cast<std::size_t>(depth), 'd')
    {
    }
    std::string trail;
};

int descend(int depth, int limit)
{
    const std::string held(static_cast<std::size_t>(depth) * 17, 'h');
    const auto owned = std::make_unique<std::vector<int>>(depth + 1, depth);
    if (depth == limit)
        throw Deep("thrown at depth " + std::to_string(depth), depth);
    return descend(depth + 1, limit) + owned->back() +
           static_cast<int>(held.size());
}

std::uint64_t exceptions(unsigned seed)
{
    std::uint64_t caught = 0;
    for (int i = 0; i < 1500; i++) {
        try {
            try {
                descend(0, static_cast<int>((seed + i) % 40));
            } catch (const Deep &) {
                std::throw_with_nested(std::logic_error("from outside"));
            }
        } catch (const std::logic_error &outer) {
            try {
                std::rethrow_if_nested(outer);
            } catch (const Deep &inner) {
                CHECK(std::strncmp(inner.what(), "thrown at", 9) == 0);
                caught += inner.trail.size() + 1;
            }
        }
    }
    return caught;
}

/* Thrown in one thread, caught and destroyed in another. */
std::uint64_t exceptions_across()
{
    std::uint64_t sum = 0;
    std::vector<std::exception_ptr> thrown(200);
    std::thread thread([&] {
        for (std::size_t i = 0; i < thrown.size(); i++) {
            try {
                descend(0, static_cast<int>(i % 30));
            } catch (...) {
                thrown[i] = std::current_exception();
            }
        }
    });
    thread.join();
    for (auto &pointer : thrown) {
        try {
            std::rethrow_exception(std::exchange(pointer, nullptr));
        } catch (const Deep &deep) {
            sum += deep.trail.size();
        }
    }
    auto future = std::async(std::launch::async, [] { return descend(0, 25); });
    try {
        future.get();
        CHECK(!"an exception in a future");
    } catch (const Deep &deep) {
        CHECK(std::string(deep.what()) == "thrown at depth 25");
    }
    return sum;
}

/* ---- new and delete ------------------------------------------------------ */

struct alignas(256) Wide {
    unsigned char bytes[512];
};

std::atomic<int> handler_calls;

/* What a compiler may leave out when it sees both ends. */
template <class T> T *seen(T *p)
{
    asm volatile("" : "+r"(p) : : "memory");
    return p;
}

void forms_of_size(std::size_t size)
{
    for (std::size_t power = 4; power <= 16; power++) {
        const auto alignment = static_cast<std::align_val_t>(1u << power);
        void *p = seen(::operator new(size, alignment));
        void *q = seen(::operator new[](size, alignment, std::nothrow));
        CHECK(q && aligned(p, 1u << power) && aligned(q, 1u << power));
        std::memset(p, 1, size);
        std::memset(q, 2, size);
        ::operator delete(p, size, alignment);
        ::operator delete[](q, alignment);
    }
    char *p = static_cast<char *>(seen(::operator new(size)));
    char *q = static_cast<char *>(seen(::operator new(size, std::nothrow)));
    char *r = static_cast<char *>(seen(::operator new[](size)));
    char *s = static_cast<char *>(seen(::operator new[](size, std::nothrow)));
    CHECK(q && s && aligned(p, size < 16 ? 8 : 16));
    std::memset(p, 'p', size);
    std::memset(q, 'q', size);
    std::memset(r, 'r', size);
    std::memset(s, 's', size);
    for (std::size_t i = 0; i < size; i++)
        CHECK(p[i] == 'p' && q[i] == 'q' && r[i] == 'r' && s[i] == 's');
    ::operator delete(p, size);
    ::operator delete(q, std::nothrow);
    ::operator delete[](r);
    ::operator delete[](s, std::nothrow);
}

std::uint64_t forms(unsigned)
{
    for (std::size_t size : {1u, 24u, 100u, 1024u, 1025u, 5000u, 53248u, 53249u,
                             300000u, 2097151u, 2097152u, 5000000u})
        forms_of_size(size);
    void *none = seen(::operator new(0));
    CHECK(none != nullptr);
    ::operator delete(none);
    ::operator delete(seen(static_cast<void *>(nullptr)));
    std::vector<std::unique_ptr<Wide>> wide;
    for (int i = 0; i < 300; i++) {
        wide.push_back(std::make_unique<Wide>());
        CHECK(aligned(wide.back().get(), 256));
        std::memset(wide.back()->bytes, i, sizeof wide.back()->bytes);
    }
    std::uint64_t sum = 0;
    for (const auto &one : wide)
        sum += one->bytes[511];
    return sum;
}

void too_large()
{
    volatile std::size_t huge = SIZE_MAX / 2;
    CHECK(seen(::operator new(huge, std::nothrow)) == nullptr);
    try {
        seen(::operator new(huge));
        CHECK(!"operator new throws std::bad_alloc");
    } catch (const std::bad_alloc &) {
    }
    std::set_new_handler([] {
        if (++handler_calls == 3)
            std::set_new_handler(nullptr);
    });
    try {
        seen(::operator new[](huge, std::align_val_t{64}));
        CHECK(!"the aligned form throws std::bad_alloc");
    } catch (const std::bad_alloc &) {
    }
    CHECK(handler_calls == 3);
}

/* ---- the C functions ----------------------------------------------------- */

std::uint64_t c_functions(unsigned seed)
{
    std::uint32_t state = seed + 99;
    std::vector<unsigned char *> blocks(64);
    std::vector<std::size_t> sizes(64);
    for (int round = 0; round < 3000; round++) {
        const std::size_t i = next(state) % 64;
        const std::size_t size = std::size_t{1} << (next(state) % 19);
        const auto mark = static_cast<unsigned char>(i + 1);
        auto *p = static_cast<unsigned char *>(
            std::realloc(blocks[i], size + next(state) % size));
        CHECK(p);
        for (std::size_t at = 0; at < std::min(size, sizes[i]); at++)
            CHECK(p[at] == mark);
        std::memset(p, mark, size);
        blocks[i] = p;
        sizes[i] = size;
    }
    for (unsigned char *p : blocks)
        std::free(p);
    for (std::size_t size : {8u, 999u, 20000u, 3000000u}) {
        auto *zero = static_cast<unsigned char *>(seen(std::calloc(size, 3)));
        for (std::size_t at = 0; at < 3 * size; at++)
            CHECK(zero[at] == 0);
        std::memset(zero, 0xff, 3 * size);
        std::free(zero);
        void *p = nullptr;
        CHECK(posix_memalign(&p, 4096, size) == 0 && aligned(p, 4096));
        std::free(p);
        p = seen(std::aligned_alloc(64, (size + 63) / 64 * 64));
        CHECK(p && aligned(p, 64));
        std::free(p);
    }
    void *p = nullptr;
    CHECK(posix_memalign(&p, 24, 100) == EINVAL);
    volatile std::size_t half = SIZE_MAX / 2;
    errno = 0;
    CHECK(seen(std::calloc(half, 3)) == nullptr && errno == ENOMEM);
    return state;
}

/* ---- between threads ----------------------------------------------------- */

/* Half of the threads make messages, half take and free them. */
std::uint64_t queue()
{
    std::mutex mutex;
    std::condition_variable ready;
    std::deque<std::unique_ptr<std::string>> messages;
    unsigned makers = kThreads / 2;
    return in_threads([&](unsigned number) {
        std::uint64_t sum = 0;
        if (number < kThreads / 2) {
            for (unsigned i = 0; i < 60000; i++) {
                auto message = std::make_unique<std::string>(i % 300, 'm');
                const std::lock_guard<std::mutex> lock(mutex);
                messages.push_back(std::move(message));
                ready.notify_one();
            }
            const std::lock_guard<std::mutex> lock(mutex);
            makers--;
            ready.notify_all();
            return sum;
        }
        for (;;) {
            std::unique_lock<std::mutex> lock(mutex);
            ready.wait(lock, [&] { return !messages.empty() || makers == 0; });
            if (messages.empty())
                return sum;
            const auto message = std::move(messages.front());
            messages.pop_front();
            lock.unlock();
            sum += message->size();
        }
    });
}

/* Threads by the hundred: each leaves blocks that others use and free, and
 * a thread-local container is destroyed at its end. */
std::uint64_t short_threads()
{
    std::vector<std::shared_ptr<std::string>> kept(300);
    for (std::size_t i = 0; i < kept.size(); i += 3) {
        std::array<std::thread, 3> threads;
        for (std::size_t j = 0; j < 3; j++)
            threads[j] = std::thread([&kept, at = i + j] {
                thread_local std::vector<std::string> mine;
                for (int k = 0; k < 100; k++)
                    mine.emplace_back(at, 't');
                kept[at] = std::make_shared<std::string>(mine.back());
            });
        for (auto &thread : threads)
            thread.join();
    }
    std::uint64_t sum = 0;
    for (auto &text : kept)
        sum += text->size();
    return sum;
}

/* Objects of static duration: made before main, destroyed after it. */
struct Static {
    std::vector<std::string> text{
        std::vector<std::string>(1000, "before main")};
    ~Static()
    {
        for (const auto &one : text)
            CHECK(one == "before main");
    }
} before_main;

} // namespace

int main()
{
    const auto say = [](const char *what, std::uint64_t figure) {
        std::ostringstream line;
        line << what << ": " << figure;
        std::puts(line.str().c_str());
    };
    say("containers", in_threads(containers));
    say("exceptions", in_threads(exceptions));
    say("exceptions across threads", exceptions_across());
    say("new and delete", in_threads(forms));
    too_large();
    say("C functions", in_threads(c_functions));
    const std::uint64_t sum = queue();
    CHECK(sum == 2ull * 200 * (299 * 300 / 2));
    say("a queue", sum);
    say("short threads", short_threads());
    CHECK(before_main.text.size() == 1000);
    std::puts("all is well");
}
