/*
 * libcxx.cc - a library in C++ that runs out of memory.
 */
#include <cstddef>
#include <new>

static void throw_it()
{
    throw std::bad_alloc();
}

extern "C" int cxx_test(void)
{
    volatile size_t too_much = (size_t)1 << 62;
    void *volatile got;
    int caught = 0;

    try {
        got = ::operator new(too_much);
        caught += got == nullptr;
    } catch (const std::bad_alloc &) {
        caught += 10;
    }
    std::set_new_handler(throw_it);
    caught += ::operator new(too_much, std::nothrow) == nullptr;
    std::set_new_handler(nullptr);
    return caught;
}
