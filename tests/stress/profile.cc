/*
 * profile.cc - profiles taken while all is going on at once.
 *
 *     profile PROFILES THREADS
 *
 * Switches, marks and writes the profile PROFILES times, at several rates, while four
 * threads work (stacks of all depths, blocks of all lanes that others free, objects
 * thrown through frames whose destructors allocate), a signal interrupts whoever runs,
 * others come and go, THREADS in all, and children are forked that take a profile of
 * their own. At last all is freed, and the profile must be empty.
 *
 * On the core's own names: it may be linked with libhakmem_core.a, so with a
 * sanitizer; with libhakmem.a operator new is ours too, and the signal's handler
 * allocates (WITH_MALLOC).
 */
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <hakmem.h>
}

#define NOINLINE __attribute__((noinline))

/* A child of a program with threads may start threads. */
extern "C" const char *__tsan_default_options();
extern "C" __attribute__((visibility("default"), used)) const char *
__tsan_default_options()
{
    return "die_after_fork=0";
}

[[noreturn]] static void fail(const char *what, long number)
{
    fprintf(stderr, "profile: %s (%ld)\n", what, number);
    _exit(1);
}

static void need(bool condition, const char *what, long number = 0)
{
    if (!condition) {
        fail(what, number);
    }
}

struct Random {
    uint64_t state;
    uint64_t next()
    {
        uint64_t x = state += UINT64_C(0x9e3779b97f4a7c15);

        x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
        return x ^ x >> 31;
    }
    size_t below(size_t n)
    {
        return static_cast<size_t>(next() % n);
    }
};

/* ---- blocks ---------------------------------------------------------------------- */

/* A block with its size at both ends. */
class Block
{
    size_t size;
    char *p;

  public:
    explicit Block(Random &random)
    {
        static const size_t most[] = {64, 64, 1000, 1000, 9000, 50000, 300000};

        size = 16 + random.below(most[random.below(7)]);
        p = static_cast<char *>(hak_malloc(size));
        need(p != nullptr, "no memory", static_cast<long>(size));
        memcpy(p, &size, sizeof size);
        memcpy(p + size - sizeof size, &size, sizeof size);
    }
    Block(Block &&other) noexcept : size(other.size), p(other.p)
    {
        other.p = nullptr;
    }
    Block(const Block &) = delete;
    ~Block()
    {
        if (p != nullptr) {
            need(memcmp(p, &size, sizeof size) == 0, "a block has changed");
            need(memcmp(p + size - sizeof size, &size, sizeof size) == 0,
                 "a block's end has changed");
            hak_free(p);
        }
    }
};

/* Handed on to whoever comes next. */
static std::mutex pile_lock;
static std::vector<Block> pile;

static void swap_with_pile(Random &random)
{
    Block mine(random);
    std::vector<Block> theirs;
    std::lock_guard<std::mutex> held(pile_lock);

    if (pile.size() > 500) {
        size_t half = pile.size() / 2;

        for (size_t i = half; i < pile.size(); i++) {
            theirs.push_back(std::move(pile[i]));
        }
        while (pile.size() > half) {
            pile.pop_back();
        }
    }
    pile.push_back(std::move(mine));
}

/* ---- exceptions -------------------------------------------------------------------- */

struct Thrown {
    Block block;
    std::string text;
};

/* Allocates while its frame is being left. */
struct Leaves {
    Random &random;
    ~Leaves()
    {
        Block a(random), b(random);

        try { /* one more in flight */
            if (random.below(4) == 0) {
                throw Thrown{Block(random), "inner"};
            }
        } catch (const Thrown &thrown) {
            need(thrown.text == "inner", "another was caught");
        }
    }
};

NOINLINE static size_t deep(Random &random, unsigned depth)
{
    Leaves leaves{random};
    volatile char *room =
        static_cast<volatile char *>(__builtin_alloca(1 + random.below(300)));
    Block block(random);

    room[0] = 0;
    if (depth == 0) {
        if (random.below(2) == 0) {
            throw Thrown{Block(random), std::string(40, 'x')};
        }
        return 1;
    }
    if (random.below(5) == 0) {
        try {
            return deep(random, depth - 1) + 1;
        } catch (const Thrown &) {
            if (random.below(2) == 0) {
                throw;
            }
        }
    }
    return deep(random, depth - 1) + static_cast<size_t>(room[0]);
}

static void throw_and_catch(Random &random)
{
    try {
        deep(random, static_cast<unsigned>(random.below(30)));
    } catch (const Thrown &thrown) {
        need(thrown.text == std::string(40, 'x'), "another was caught");
    }
}

/* ---- threads ----------------------------------------------------------------------- */

static std::atomic<bool> stop;
static std::atomic<long> ended;

static void work(uint64_t seed)
{
    Random random{seed};

    while (!stop) {
        for (int i = 0; i < 20; i++) {
            swap_with_pile(random);
        }
        throw_and_catch(random);
    }
}

static void come_and_go(long n)
{
    Random random{1000000};

    while (ended < n) {
        std::vector<std::thread> some;

        for (int i = 0; i < 25; i++) {
            uint64_t seed = random.next();

            some.emplace_back([seed] {
                Random own{seed};

                swap_with_pile(own);
                if (seed % 8 == 0) {
                    throw_and_catch(own);
                }
            });
        }
        for (std::thread &one : some) {
            one.join();
        }
        ended += 25;
    }
}

/* ---- signals ------------------------------------------------------------------------- */

static void on_signal(int)
{
#ifdef WITH_MALLOC
    int saved = errno;

    free(malloc(200));
    errno = saved;
#endif
}

/* Of the process: whoever runs is interrupted. A thread that takes profiles holds their
 * lock outside of malloc, where no handler may allocate: it is left alone. */
static void signals(bool on)
{
    struct itimerval every = {{0, on ? 700 : 0}, {0, on ? 700 : 0}};
    struct sigaction action = {};

    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    need(sigaction(SIGALRM, &action, nullptr) == 0, "sigaction");
    need(setitimer(ITIMER_REAL, &every, nullptr) == 0, "setitimer");
}

static void block_signals(bool on)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(on ? SIG_BLOCK : SIG_UNBLOCK, &set, nullptr);
}

/* ---- profiles ------------------------------------------------------------------------ */

static const int formats[] = {HAK_PROFILE_COLLAPSED, HAK_PROFILE_PPROF,
                              HAK_PROFILE_SPEEDSCOPE, HAK_PROFILE_PAGE};

static void write_to(int fd, long i)
{
    unsigned flags = static_cast<unsigned>(i / 3) % (HAK_PROFILE_FLAGS + 1);
    /* A page with all of a long run is large: now and then. */
    int format = formats[i % (i % 50 == 0 ? 4 : 2)];

    need(lseek(fd, 0, SEEK_SET) >= 0, "lseek");
    need(ftruncate(fd, 0) == 0 || errno == EINVAL, "ftruncate");
    need(hak_profile_write_fd(fd, format, flags) == 0, "hak_profile_write_fd",
         errno);
}

static void take(int fd, long i)
{
    static const size_t rates[] = {1 << 19, 4096, 65536, 1, 1 << 19, 300};

    need(hak_profile_start(rates[i % 6]) == 0, "hak_profile_start");
    if (i % 3 == 0) {
        hak_profile_mark();
    }
    write_to(fd, i);
    if (i % 5 == 4) {
        hak_profile_stop();
    }
}

NOINLINE static void *of_the_child(size_t size)
{
    void *volatile p = hak_malloc(size);

    return p;
}

/* It has what its parent has of live blocks, and sums of its own. */
static void in_the_child()
{
    char text[1 << 16] = {0};
    int fd = memfd_create("profile", MFD_CLOEXEC);
    Random random{7};
    void *p[1000]; /* more than may lie ready, which are no samples */

    need(hak_profile_start(1) == 0, "hak_profile_start in a child");
    for (void *&one : p) {
        one = of_the_child(3000);
    }
    hak_profile_stop();
    need(hak_profile_write_fd(fd, HAK_PROFILE_COLLAPSED,
                              HAK_PROFILE_ALLOCATED) == 0,
         "hak_profile_write_fd in a child");
    need(pread(fd, text, sizeof text - 1, 0) > 0, "an empty profile");
    /* Its parent may have had as many stacks as there is room for. */
    need(strstr(text, "of_the_child") != nullptr ||
             strstr(text, "[stacks that had no room]") != nullptr,
         "a child's own is missing");
    need(strstr(text, "come_and_go") == nullptr, "a child has its parent's");
    for (int i = 0; i < 10; i++) {
        throw_and_catch(random);
        take(fd, i);
    }
    for (void *one : p) {
        hak_free(one);
    }
    _exit(0);
}

static void fork_one()
{
    pid_t child = fork();
    int status = 0;

    need(child >= 0, "fork");
    if (child == 0) {
        signal(SIGALRM, SIG_DFL);
        block_signals(false);
        alarm(300); /* rather than for ever */
        in_the_child();
    }
    need(waitpid(child, &status, 0) == child && status == 0, "a child failed",
         status);
}

static void end()
{
    char text[4096] = {0};
    int fd = memfd_create("profile", MFD_CLOEXEC);

    pile.clear();
    pile.shrink_to_fit();
    need(hak_profile_write_fd(fd, HAK_PROFILE_COLLAPSED, 0) == 0,
         "hak_profile_write_fd", errno);
#ifndef WITH_MALLOC /* what the C++ library keeps is live */
    need(pread(fd, text, sizeof text - 1, 0) == 0, text);
#else
    static_cast<void>(text);
#endif
    close(fd);
}

int main(int argc, char **argv)
{
    long profiles = argc > 1 ? atol(argv[1]) : 0;
    long threads = argc > 2 ? atol(argv[2]) : 0;
    int fds[] = {memfd_create("profile", MFD_CLOEXEC),
                 open("/dev/null", O_WRONLY | O_CLOEXEC)};
    std::vector<std::thread> workers;

    if (profiles <= 0 || threads <= 0) {
        fprintf(stderr, "usage: %s PROFILES THREADS\n", argv[0]);
        return 2;
    }
    signals(true);
    for (uint64_t i = 0; i < 4; i++) {
        workers.emplace_back(work, i + 1);
    }
    workers.emplace_back(come_and_go, threads);
    block_signals(true);
    for (long i = 0; i < profiles; i++) {
        take(fds[i % 2], i);
        if (i % 20 == 0) {
            fork_one();
        }
    }
    while (ended < threads) { /* profiles go on as long */
        take(fds[1], profiles++);
    }
    stop = true;
    for (std::thread &one : workers) {
        one.join();
    }
    signals(false);
    hak_profile_stop();
    end();
    printf("%ld profiles, %ld threads\n1 passed, 0 failed\n", profiles,
           ended.load());
    return 0;
}
