/*
 * bench_lua.c - runs a Lua program of bench/lua under a chosen allocator.
 *
 *     bench_lua ALLOCATOR PROGRAM UNITS [SEED]
 *     bench_lua --serve ALLOCATOR PROGRAM [SEED]
 *
 * ALLOCATOR: stock, hakmem (a heap of its own), hakmem-tiny (the same, lanes
 * = tiny), hakmem-thread (the thread's heap), mimalloc (loaded when asked
 * for), count (stock, and counts calls).
 * PROGRAM: a name in bench/lua, a path with a slash, or "states" (500 short
 * states opened and closed a unit). SEED chooses Lua's hash seed: two runs
 * of one binary with the same number lay out their tables alike.
 *
 * A serving process reads lines: "unit N" runs N units and is answered by
 * "CPU_NS FAULTS RESULT", "end" by a line of key=value pairs. lua_report.py
 * is the other side. To be compiled with -fno-pie and linked with -no-pie, for
 * the seeds (see below).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <hakmem_lua.h>
#include <lauxlib.h>
#include <lualib.h>

enum { STATES_PER_UNIT = 500, RESULT_MAX = 128, SIZES = 1025 };

static void die(const char *what, const char *name, const char *why)
{
    fflush(stdout);
    fprintf(stderr, "bench_lua: %s%s%s: %s\n", what, *name ? " " : "", name,
            why);
    exit(2);
}

/* ---- the allocators ------------------------------------------------------ */

typedef void *realloc_fn(void *, size_t);
typedef void free_fn(void *);

static realloc_fn *peer_realloc;
static free_fn *peer_free;

/* The same work as the allocator luaL_newstate installs. */
static void *stock_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    (void)ud;
    (void)osize;
    if (nsize != 0)
        return realloc(ptr, nsize);
    free(ptr);
    return NULL;
}

static void *mimalloc_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    (void)ud;
    (void)osize;
    if (nsize != 0)
        return peer_realloc(ptr, nsize);
    peer_free(ptr);
    return NULL;
}

/* What a run asked for; filled by count_alloc alone. */
static struct {
    uint64_t empty, news, frees, resizes;
    uint64_t to_128, to_1024, larger;
    uint64_t live, peak;
    uint64_t by_size[SIZES];
} counts;

static void count_size(size_t nsize)
{
    if (nsize <= 128)
        counts.to_128++;
    else if (nsize <= 1024)
        counts.to_1024++;
    else
        counts.larger++;
    if (nsize < SIZES)
        counts.by_size[nsize]++;
}

static void *count_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    if (ptr == NULL && nsize == 0)
        counts.empty++;
    else if (ptr == NULL)
        counts.news++;
    else if (nsize == 0)
        counts.frees++;
    else
        counts.resizes++;
    if (nsize != 0)
        count_size(nsize);
    counts.live += nsize - (ptr != NULL ? osize : 0);
    if (counts.live > counts.peak)
        counts.peak = counts.live;
    return stock_alloc(ud, ptr, osize, nsize);
}

/* ---- one way to open and close a state per allocator --------------------- */

struct allocator {
    const char *name;
    lua_Alloc alloc;
    bool own_heap; /* a hak_lua_heap per state is passed as ud */
    bool peer;     /* comes from libmimalloc */
    hak_lua_lanes lanes;
};

static const struct allocator allocators[] = {
    {.name = "stock", .alloc = stock_alloc},
    {.name = "count", .alloc = count_alloc},
    {.name = "mimalloc", .alloc = mimalloc_alloc, .peer = true},
    {.name = "hakmem", .alloc = hak_lua_alloc, .own_heap = true},
    {.name = "hakmem-tiny",
     .alloc = hak_lua_alloc,
     .own_heap = true,
     .lanes = HAK_LUA_LANES_TINY},
    {.name = "hakmem-thread", .alloc = hak_lua_alloc},
};

/* dlsym gives an object pointer; C has no cast from that to a function. */
static void find_symbol(void *library, const char *name, void *function)
{
    void *symbol = dlsym(library, name);
    if (symbol == NULL)
        die("libmimalloc.so.2 lacks", name, "install libmimalloc-dev");
    memcpy(function, &symbol, sizeof symbol);
}

static void load_peer(void)
{
    void *library = dlopen("libmimalloc.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        die("cannot load", "libmimalloc.so.2", "install libmimalloc-dev");
    find_symbol(library, "mi_realloc", &peer_realloc);
    find_symbol(library, "mi_free", &peer_free);
}

static const struct allocator *allocator_named(const char *name)
{
    for (size_t i = 0; i < sizeof allocators / sizeof *allocators; i++) {
        if (strcmp(allocators[i].name, name) != 0)
            continue;
        if (allocators[i].peer)
            load_peer();
        return &allocators[i];
    }
    die("no allocator", name,
        "use stock, hakmem, hakmem-tiny, hakmem-thread, mimalloc or count");
    return NULL;
}

/* ---- states with a chosen hash seed -------------------------------------- */

/*
 * Lua 5.4 makes its hash seed of the time, the address of the new state, the
 * address of a local variable and the address of lua_newstate. To have the
 * same seed under every allocator, the driver gives it a time of its own, a
 * stack and a first block at fixed addresses, and takes the address of
 * lua_newstate in code that is not position independent, which fixes that
 * too. Where one of these fails, seeds are random again; the fingerprint a
 * serving process prints tells.
 */
enum { MAIN_BLOCK_MAX = 4096, SEED_STACK = 256 << 10 };

#define SEED_AREA ((void *)(UINT64_C(3) << 40))

static time_t seed_time; /* 0: the true time */
static char *seed_area;  /* the first block, then the stack; or NULL */

struct state {
    lua_State *lua;
    lua_Alloc alloc;
    void *ud;
    hak_lua_heap *heap;
    void *main_block; /* the seed area, once it is given out */
};

/* In the place of libc's, for Lua's seed; os.time() is wrong with it. */
HAK_API time_t time(time_t *result)
{
    struct timespec now = {.tv_sec = seed_time};
    if (seed_time == 0)
        clock_gettime(CLOCK_REALTIME, &now);
    if (result != NULL)
        *result = now.tv_sec;
    return now.tv_sec;
}

static void map_seed_area(void)
{
    size_t size = MAIN_BLOCK_MAX + SEED_STACK;
    void *area = mmap(SEED_AREA, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    seed_area = area == SEED_AREA ? area : NULL;
}

/* Only at a state's beginning and end; in between it has its true allocator. */
static void *seed_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    struct state *state = ud;
    if (ptr == NULL && osize == LUA_TTHREAD && state->main_block == NULL &&
        nsize <= MAIN_BLOCK_MAX) {
        state->main_block = seed_area;
        return seed_area;
    }
    if (ptr != NULL && ptr == state->main_block)
        return NULL;
    return state->alloc(state->ud, ptr, osize, nsize);
}

static struct state *being_made; /* makecontext passes no pointers */
static lua_State *(*volatile new_state)(lua_Alloc, void *);

static void make_on_seed_stack(void)
{
    being_made->lua = new_state(seed_alloc, being_made);
}

static void make_state(struct state *state)
{
    ucontext_t here, there;
    if (seed_area == NULL || getcontext(&there) != 0) {
        state->lua = lua_newstate(state->alloc, state->ud);
        return;
    }
    there.uc_stack.ss_sp = seed_area + MAIN_BLOCK_MAX;
    there.uc_stack.ss_size = SEED_STACK;
    there.uc_link = &here;
    being_made = state;
    new_state = lua_newstate;
    makecontext(&there, make_on_seed_stack, 0);
    swapcontext(&here, &there);
    if (state->lua != NULL)
        lua_setallocf(state->lua, state->alloc, state->ud);
}

static void open_state(const struct allocator *allocator, struct state *state)
{
    memset(state, 0, sizeof *state);
    state->alloc = allocator->alloc;
    if (allocator->own_heap) {
        hak_lua_config config = {.size = sizeof config,
                                 .lanes = allocator->lanes};
        state->heap = hak_lua_heap_new(&config);
        if (state->heap == NULL)
            die("hak_lua_heap_new", "", strerror(errno));
        state->ud = state->heap;
    }
    make_state(state);
    if (state->lua == NULL)
        die("lua_newstate under", allocator->name, "out of memory");
    luaL_openlibs(state->lua);
}

static void close_state(struct state *state)
{
    if (state->main_block != NULL)
        lua_setallocf(state->lua, seed_alloc, state);
    lua_close(state->lua);
    hak_lua_heap_delete(state->heap);
}

/* ---- programs ------------------------------------------------------------ */

struct run {
    const struct allocator *allocator;
    const char *program;
    bool states; /* the program is "states": no state is kept open */
    struct state state;
    char result[RESULT_MAX]; /* of the last unit */
    uint64_t digest;         /* over the results of all units */
    hak_lua_stats hak;       /* summed over states that have ended */
};

static void add_stats(struct run *run, const hak_lua_heap *heap)
{
    hak_lua_stats now = {.size = sizeof now};
    if (heap == NULL || hak_lua_heap_stats(heap, &now) != 0)
        return;
    run->hak.calls += now.calls;
    run->hak.tiny_allocs += now.tiny_allocs;
    run->hak.tiny_frees += now.tiny_frees;
    run->hak.larger_allocs += now.larger_allocs;
    run->hak.larger_frees += now.larger_frees;
    run->hak.fallback_large += now.fallback_large;
    run->hak.fallback_memory += now.fallback_memory;
    run->hak.foreign_frees += now.foreign_frees;
    if (now.peak_bytes > run->hak.peak_bytes)
        run->hak.peak_bytes = now.peak_bytes;
}

static void take_result(struct run *run, lua_State *L, int failed)
{
    if (failed)
        die("program", run->program, lua_tostring(L, -1));
    snprintf(run->result, sizeof run->result, "%s",
             luaL_tolstring(L, -1, NULL));
    for (const char *c = run->result; *c != '\0'; c++)
        run->digest = (run->digest ^ (unsigned char)*c) * 0x100000001b3;
    lua_pop(L, 2);
}

static const char state_script[] =
    "local t = {}\n"
    "for i = 1, 20 do t[i] = 'key' .. i end\n"
    "local config = {name = 'small', paths = {'a', 'b'}, size = #t}\n"
    "local function greet(who) return 'hello, ' .. who .. #t end\n"
    "return greet(config.name) .. table.concat(t, ',', 1, 3)\n";

static void run_short_state(struct run *run)
{
    struct state state;
    open_state(run->allocator, &state);
    int failed = luaL_loadbuffer(state.lua, state_script,
                                 sizeof state_script - 1, "=state") ||
                 lua_pcall(state.lua, 0, 1, 0);
    take_result(run, state.lua, failed);
    add_stats(run, state.heap);
    close_state(&state);
}

static __attribute__((noinline)) void run_units(struct run *run, long units)
{
    for (long i = 0; i < units; i++) {
        if (run->states) {
            for (int n = 0; n < STATES_PER_UNIT; n++)
                run_short_state(run);
            continue;
        }
        lua_pushvalue(run->state.lua, 1);
        int failed = lua_pcall(run->state.lua, 0, 1, 0);
        take_result(run, run->state.lua, failed);
    }
}

static void program_path(const char *program, char *path, size_t size)
{
    bool is_path = strchr(program, '/') != NULL;
    snprintf(path, size, is_path ? "%s" : "bench/lua/%s.lua", program);
}

/* After this the state's stack holds the program's unit at index 1. */
static void begin(struct run *run)
{
    char path[4096];
    run->states = strcmp(run->program, "states") == 0;
    run->digest = 0xcbf29ce484222325;
    if (run->states) {
        seed_area = NULL; /* the first block belongs to what is measured */
        return;
    }
    open_state(run->allocator, &run->state);
    program_path(run->program, path, sizeof path);
    lua_State *L = run->state.lua;
    if (luaL_loadfile(L, path) || lua_pcall(L, 0, 1, 0))
        die("cannot run", path, lua_tostring(L, -1));
    if (!lua_isfunction(L, 1))
        die("program", path, "must return a function");
}

static void finish(struct run *run)
{
    if (run->states)
        return;
    add_stats(run, run->state.heap);
    close_state(&run->state);
}

/* ---- measuring and reporting --------------------------------------------- */

static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_minflt;
}

/*
 * The peak resident size in KB of this program image. Not ru_maxrss: that
 * one keeps the peak of the process which started us.
 */
static unsigned long peak_kb(void)
{
    char text[4096] = "";
    int file = open("/proc/self/status", O_RDONLY);
    if (file < 0 || read(file, text, sizeof text - 1) <= 0)
        die("cannot read", "/proc/self/status", strerror(errno));
    close(file);
    const char *line = strstr(text, "VmHWM:");
    return line != NULL ? strtoul(line + 6, NULL, 10) : 0;
}

static void print_summary(const struct run *run, long units, uint64_t ns)
{
    printf("program=%s allocator=%s units=%ld cpu_ms=%.3f faults=%" PRIu64
           " peak_kb=%lu result=%s digest=%016" PRIx64,
           run->program, run->allocator->name, units, (double)ns / 1e6,
           faults(), peak_kb(), run->result, run->digest);
    if (run->allocator->own_heap)
        printf(" calls=%" PRIu64 " tiny_calls=%" PRIu64 " larger_calls=%" PRIu64
               " fallback_large=%" PRIu64 " fallback_memory=%" PRIu64
               " foreign_frees=%" PRIu64 " lua_peak=%zu",
               run->hak.calls, run->hak.tiny_allocs + run->hak.tiny_frees,
               run->hak.larger_allocs + run->hak.larger_frees,
               run->hak.fallback_large, run->hak.fallback_memory,
               run->hak.foreign_frees, run->hak.peak_bytes);
    putchar('\n');
    fflush(stdout);
}

static void print_counts(void)
{
    uint64_t asked = counts.to_128 + counts.to_1024 + counts.larger;
    double share = asked != 0 ? 100.0 / (double)asked : 0;
    printf("counts: empty=%" PRIu64 " new=%" PRIu64 " free=%" PRIu64
           " resize=%" PRIu64 " peak_bytes=%" PRIu64
           " to_128=%.2f%% to_1024=%.2f%% larger=%.2f%%\nsizes:",
           counts.empty, counts.news, counts.frees, counts.resizes, counts.peak,
           (double)counts.to_128 * share, (double)counts.to_1024 * share,
           (double)counts.larger * share);
    for (int rank = 0; rank < 12; rank++) {
        int best = 0;
        for (int size = 1; size < SIZES; size++)
            if (counts.by_size[size] > counts.by_size[best])
                best = size;
        if (counts.by_size[best] == 0)
            break;
        printf(" %d:%.1f%%", best, (double)counts.by_size[best] * share);
        counts.by_size[best] = 0;
    }
    putchar('\n');
}

/* A number that depends on the hash seed and little else. */
static void fingerprint(char *text, size_t size)
{
    static const char script[] = "local t, h = {}, 7\n"
                                 "for i = 1, 90 do t['key' .. i] = i end\n"
                                 "for _, i in pairs(t) do\n"
                                 "    h = (h * 31 + i) % 4294967291\n"
                                 "end\n"
                                 "return h";
    struct state state;
    open_state(&allocators[0], &state);
    if (luaL_dostring(state.lua, script))
        die("fingerprint", "", lua_tostring(state.lua, -1));
    snprintf(text, size, "%s", lua_tostring(state.lua, -1));
    close_state(&state);
}

static long number(const char *text, const char *what)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < 0)
        die(what, text, "must be a whole number, 0 or more");
    return value;
}

/* ---- the two ways to run ------------------------------------------------- */

static void serve(struct run *run)
{
    char line[64], print[32];
    long total = 0;
    uint64_t total_ns = 0;
    fingerprint(print, sizeof print);
    begin(run);
    printf("ready %s\n", print);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (strncmp(line, "unit ", 5) != 0)
            break;
        line[strcspn(line, "\n")] = '\0';
        long units = number(line + 5, "units");
        uint64_t faults_before = faults(), start = cpu_ns();
        run_units(run, units);
        uint64_t ns = cpu_ns() - start;
        printf("%" PRIu64 " %" PRIu64 " %s\n", ns, faults() - faults_before,
               run->result);
        fflush(stdout);
        total += units;
        total_ns += ns;
    }
    finish(run);
    print_summary(run, total, total_ns);
}

static void run_once(struct run *run, long units)
{
    begin(run);
    uint64_t start = cpu_ns();
    run_units(run, units);
    uint64_t ns = cpu_ns() - start;
    finish(run);
    print_summary(run, units, ns);
    if (run->allocator->alloc == count_alloc)
        print_counts();
}

static void usage(void)
{
    fputs("usage: bench_lua ALLOCATOR PROGRAM UNITS [SEED]\n"
          "       bench_lua --serve ALLOCATOR PROGRAM [SEED]\n"
          "ALLOCATOR: stock hakmem hakmem-tiny hakmem-thread mimalloc count\n"
          "PROGRAM: a name in bench/lua, a path, or states\n",
          stderr);
    exit(2);
}

int main(int argc, char **argv)
{
    bool serving = argc > 1 && strcmp(argv[1], "--serve") == 0;
    if (argc < 4 || argc > 5)
        usage();
    const char *const *args = (const char *const *)argv + (serving ? 2 : 1);
    const char *seed = argc == 5 ? argv[4] : "1";
    struct run run = {.allocator = allocator_named(args[0]),
                      .program = args[1]};
    seed_time = 1000000 + number(seed, "seed");
    map_seed_area();
    if (serving)
        serve(&run);
    else
        run_once(&run, number(args[2], "units"));
    return 0;
}
