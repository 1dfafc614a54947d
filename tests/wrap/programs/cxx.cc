/*
 * cxx.cc - every form of new and delete, and what C++ asks of them when there
 * is no memory. It says where they come from, and "well" if all held.
 */
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <dlfcn.h>

#define NEED(condition)                                                        \
    ((condition) ? (void)0                                                     \
                 : (fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, \
                            #condition),                                       \
                    exit(1)))

#ifdef PROGRAM_STATIC
extern "C" bool hak_owns(const void *p);

static bool owned(const void *p)
{
    return hak_owns(p);
}
#else
static bool owned(const void *p)
{
    typedef bool owns(const void *);
    static owns *found = (owns *)dlsym(RTLD_DEFAULT, "hak_owns");

    return found != nullptr && found(p);
}
#endif

/* The compiler shall not leave any of it out. */
static void *seen(void *p, size_t size, size_t alignment)
{
    void *volatile hidden = p;

    NEED(hidden != nullptr && (uintptr_t)hidden % alignment == 0);
    memset(hidden, 1, size);
    return hidden;
}

static size_t hide(size_t n)
{
    volatile size_t hidden = n;

    return hidden;
}

static void plain_forms(size_t n)
{
    ::operator delete(seen(::operator new(n), n, 16));
    ::operator delete(seen(::operator new(n), n, 16), n);
    ::operator delete(seen(::operator new(n), n, 16), std::nothrow);
    ::operator delete[](seen(::operator new[](n), n, 16));
    ::operator delete[](seen(::operator new[](n), n, 16), n);
    ::operator delete[](seen(::operator new[](n), n, 16), std::nothrow);
    ::operator delete(seen(::operator new(n, std::nothrow), n, 16));
    ::operator delete[](seen(::operator new[](n, std::nothrow), n, 16));
    ::operator delete(nullptr);
    ::operator delete[](nullptr, n);
}

static void aligned_forms(size_t n, size_t alignment)
{
    std::align_val_t a{alignment};

    ::operator delete(seen(::operator new(n, a), n, alignment), a);
    ::operator delete(seen(::operator new(n, a), n, alignment), n, a);
    ::operator delete(seen(::operator new(n, a), n, alignment), a,
                      std::nothrow);
    ::operator delete[](seen(::operator new[](n, a), n, alignment), a);
    ::operator delete[](seen(::operator new[](n, a), n, alignment), n, a);
    ::operator delete[](seen(::operator new[](n, a), n, alignment), a,
                        std::nothrow);
    ::operator delete(seen(::operator new(n, a, std::nothrow), n, alignment),
                      a);
    ::operator delete[](seen(::operator new[](n, a, std::nothrow), n,
                             alignment),
                        a);
}

/* ---- no memory ---------------------------------------------------------- */

static const size_t too_much = (size_t)1 << 62;
static void *volatile sink; /* what is asked for is not left out */
static int handled;

static void count_and_give_up()
{
    if (++handled == 3) {
        std::set_new_handler(nullptr);
    }
}

struct own_exception : std::bad_alloc {
};

static void throw_own()
{
    handled++;
    throw own_exception();
}

template <typename Exception, typename Call> static void expect(Call call)
{
    bool caught = false;

    try {
        call();
    } catch (const Exception &) {
        caught = true;
    }
    NEED(caught);
}

template <typename Exception> static void all_throw()
{
    std::align_val_t a{64};

    expect<Exception>([] { sink = ::operator new(hide(too_much)); });
    expect<Exception>([] { sink = ::operator new[](hide(too_much)); });
    expect<Exception>([a] { sink = ::operator new(hide(too_much), a); });
    expect<Exception>([a] { sink = ::operator new[](hide(too_much), a); });
    expect<Exception>([] { sink = new char[hide(too_much)]; });
}

static void all_null()
{
    std::align_val_t a{64};

    NEED(::operator new(hide(too_much), std::nothrow) == nullptr);
    NEED(::operator new[](hide(too_much), std::nothrow) == nullptr);
    NEED(::operator new(hide(too_much), a, std::nothrow) == nullptr);
    NEED(::operator new[](hide(too_much), a, std::nothrow) == nullptr);
}

static void no_memory()
{
    all_throw<std::bad_alloc>();
    all_null();

    std::set_new_handler(throw_own);
    all_throw<own_exception>();
    NEED(handled == 5);
    all_null();
    NEED(handled == 9);

    handled = 0;
    std::set_new_handler(count_and_give_up);
    expect<std::bad_alloc>([] { sink = ::operator new(hide(too_much)); });
    NEED(handled == 3);
    handled = 0;
    std::set_new_handler(count_and_give_up);
    NEED(::operator new(hide(too_much), std::nothrow) == nullptr);
    NEED(handled == 3);
}

/* ---- a program ---------------------------------------------------------- */

static void use_containers(int seed)
{
    std::map<std::string, std::vector<int>> map;

    for (int i = 0; i < 3000; i++) {
        std::string key = std::to_string((i * 7919 + seed) % 500) +
                          "-key-that-"
                          "is-long-enough-to-be-on-the-heap";
        map[key].push_back(i);
        if (i % 100 == 0) {
            try {
                auto held = std::make_unique<std::string>(key);
                throw std::runtime_error(*held);
            } catch (const std::runtime_error &error) {
                NEED(key == error.what());
            }
        }
    }
    size_t sum = 0;
    for (auto &[key, values] : map) {
        sum += values.size();
    }
    NEED(sum == 3000 && map.size() == 500);
}

int main(int argc, char **argv)
{
    void *p = ::operator new(hide(100));
    void *q = ::operator new[](hide(100), std::nothrow);
    void *r = ::operator new (hide(100), std::align_val_t{128});

    printf("owned: %d %d %d\n", owned(p), owned(q), owned(r));
    ::operator delete(p);
    ::operator delete[](q);
    ::operator delete (r, std::align_val_t{128});
    for (size_t n = 0; n < 5000; n = n * 2 + 1) {
        plain_forms(hide(n));
        for (size_t alignment = 1; alignment <= 65536; alignment *= 2) {
            aligned_forms(hide(n), alignment);
        }
    }
    if (argc < 2 || strcmp(argv[1], "calm") != 0) {
        no_memory();
    }
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++) {
        threads.emplace_back(use_containers, i);
    }
    for (auto &thread : threads) {
        thread.join();
    }
    puts("well");
    return 0;
}
