/*
 * switch.c - hak_lua_switch and the module inside one process: a running
 * state moves over, and every block it had before goes back, with its right
 * size, to the allocator that made it.
 */
#include "lua_test.h"

TestSuite(switching, .timeout = 300);

/* ---- an allocator that knows its own blocks ---------------------------- */

/* Sits in front of every block; a block of somebody else's has no mark. */
typedef struct header {
    uint64_t mark;
    size_t size;
} header;

#define MARK UINT64_C(0x6d61726b6d61726b)

typedef struct checker {
    size_t live;
    long blocks, wrong, large, calls;
    bool dry; /* gives nothing any more */
} checker;

static void *checker_new(checker *c, size_t size)
{
    header *h = c->dry ? NULL : malloc(sizeof *h + size);
    if (!h)
        return NULL;
    h->mark = MARK;
    h->size = size;
    c->live += size;
    c->blocks++;
    c->large += size > 1024;
    return h + 1;
}

static void checker_free(checker *c, void *ptr, size_t osize)
{
    header *h = (header *)ptr - 1;
    if (h->mark != MARK || h->size != osize) {
        c->wrong++;
        return;
    }
    h->mark = 0;
    c->live -= osize;
    c->blocks--;
    free(h);
}

static void *checked_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    checker *c = ud;
    void *moved = nsize ? checker_new(c, nsize) : NULL;
    c->calls++;
    if (moved && ptr)
        memcpy(moved, ptr, osize < nsize ? osize : nsize);
    if (ptr && (moved || !nsize))
        checker_free(c, ptr, osize);
    return moved;
}

static lua_State *open_checked(checker *c)
{
    *c = (checker){0};
    lua_State *L = lua_newstate(checked_alloc, c);
    cr_assert(L);
    luaL_openlibs(L);
    return L;
}

static void expect_all_back(const checker *c)
{
    cr_expect_eq(c->wrong, 0, "%ld blocks came back wrong", c->wrong);
    cr_expect_eq(c->blocks, 0, "%ld blocks did not come back", c->blocks);
    cr_expect_eq(c->live, (size_t)0, "%zu bytes did not come back", c->live);
}

/* ---- moving over ------------------------------------------------------- */

static const char before_code[] =
    "data, strings = {}, {}\n"
    "for i = 1, 3000 do data[i] = {i, {i}, name = 'name' .. i} end\n"
    "for i = 1, 200 do strings[i] = ('s'):rep(i * 13) end\n"
    "co = coroutine.wrap(function()\n"
    "    local function deep(n)\n"
    "        if n == 0 then coroutine.yield('deep') return 0 end\n"
    "        return 1 + deep(n - 1)\n"
    "    end\n"
    "    return deep(500)\n"
    "end)\n"
    "assert(co() == 'deep')\n"
    "fin = setmetatable({}, {__gc = function() finalized = true end})\n";

static const char after_code[] =
    "assert(co() == 500)\n"
    "for i = 1, #data do\n"
    "    local d = data[i]\n"
    "    assert(d[1] == i and d[2][1] == i and d.name == 'name' .. i)\n"
    "    d[3], d[4], d[5], d.more = i, i, {i}, {d}\n"
    "end\n"
    "for i = 1, #strings do\n"
    "    assert(#strings[i] == i * 13)\n"
    "    strings[i] = strings[i] .. i\n"
    "end\n"
    "for i = 1, #data, 2 do data[i] = {i} end\n"
    "fin = nil\n"
    "collectgarbage() collectgarbage()\n"
    "assert(finalized)\n"
    "for i = 1, 20000 do data[i] = {i} end\n"
    "for i = 3000, 20000 do data[i] = nil end\n";

Test(switching, running_state)
{
    lt_needs(LT_52);
    checker c;
    lua_State *L = open_checked(&c);
    lt_run(L, before_code);
    hak_lua_heap *heap = hak_lua_switch(L, NULL);
    cr_assert(heap);
    cr_expect_eq(hak_lua_heap_of(L), heap);
    cr_expect_eq(lt_live(heap), lt_counted(L), "%zu live, Lua counts %zu",
                 lt_live(heap), lt_counted(L));
    lt_run(L, after_code);
    cr_expect_eq(lt_live(heap), lt_counted(L), "%zu live, Lua counts %zu",
                 lt_live(heap), lt_counted(L));
    hak_lua_stats stats = lt_stats(heap);
    cr_expect_gt(stats.tiny_allocs, (uint64_t)20000);
    cr_expect_gt(stats.foreign_frees, (uint64_t)1000);
    lua_close(L);
    expect_all_back(&c);
}

static hak_lua_heap *switch_to(lua_State *L, hak_lua_lanes lanes)
{
    hak_lua_config config = {.size = sizeof config, .lanes = lanes};
    hak_lua_heap *heap = hak_lua_switch(L, &config);
    cr_assert(heap);
    return heap;
}

/*
 * With lanes = tiny large blocks go to the allocator from before; small ones
 * don't.
 */
Test(switching, fallback_is_the_old_allocator)
{
    checker c;
    lua_State *L = open_checked(&c);
    switch_to(L, HAK_LUA_LANES_TINY);
    long large = c.large;
    lt_run(L, "t = {} for i = 1, 50 do t[i] = ('x'):rep(2000 + i) end");
    cr_expect_geq(c.large, large + 50);
    lt_collect(L);
    long blocks = c.blocks;
    lt_run(L, "u = {} for i = 1, 10 do u[i] = {i, ('y'):rep(50) .. i} end");
    lt_collect(L);
    cr_expect_leq(c.blocks, blocks + 5, "%ld more blocks", c.blocks - blocks);
    lua_close(L);
    expect_all_back(&c);
}

/* With all lanes nothing new comes from there, and what grows comes over. */
Test(switching, all_sizes_come_over)
{
    checker c;
    lua_State *L = open_checked(&c);
    lt_run(L, "big = {} for i = 1, 20000 do big[i] = i end");
    hak_lua_heap *heap = switch_to(L, HAK_LUA_LANES_ALL);
    long large = c.large;
    lt_run(L, "t = {}\n"
              "for i = 1, 50 do t[i] = ('x'):rep(2000 * i + 1) end\n"
              "t[51] = ('y'):rep(3000000)\n"
              "for i = 20001, 300000 do big[i] = i end\n"
              "for i = 1, 300000 do assert(big[i] == i) end");
    cr_expect_eq(c.large, large, "%ld large blocks more", c.large - large);
    cr_expect_gt(lt_stats(heap).larger_allocs, (uint64_t)51);
    cr_expect_eq(lt_stats(heap).fallback_large, 0u);
    lt_run(L, "for i = 300000, 1, -1 do big[i] = nil end\n"
              "big.x = 1 big, t = nil");
    lt_collect(L);
    cr_expect_eq(lt_live(heap), lt_counted(L));
    lua_close(L);
    expect_all_back(&c);
}

Test(switching, twice_is_once)
{
    checker c;
    lua_State *L = open_checked(&c);
    hak_lua_heap *heap = hak_lua_switch(L, NULL);
    cr_expect_eq(hak_lua_switch(L, NULL), heap);
    lua_State *thread = lua_newthread(L);
    cr_expect_eq(hak_lua_switch(thread, NULL), heap);
    hak_lua_close(L);
    expect_all_back(&c);
    L = lt_bare(LT_HEAP);
    cr_expect_eq(hak_lua_switch(L, NULL), hak_lua_heap_of(L));
    hak_lua_close(L);
}

static int switch_here(lua_State *L)
{
    lua_pushboolean(L, hak_lua_switch(L, NULL) != NULL);
    return 1;
}

/* In a coroutine that dies before the state does. */
Test(switching, in_a_coroutine)
{
    lt_needs(LT_52);
    checker c;
    lua_State *L = open_checked(&c);
    lua_register(L, "switch", switch_here);
    lt_run(L, before_code);
    lt_run(L, "assert(coroutine.wrap(function()\n"
              "    return coroutine.wrap(switch)()\n"
              "end)())\n"
              "collectgarbage() collectgarbage()");
    lt_run(L, after_code);
    lua_close(L);
    expect_all_back(&c);
}

/* From every kind of state there is, to both lanes, ended in both ways. */
Test(switching, from_each_allocator)
{
    lt_needs(LT_52);
    for (int mode = LT_STOCK; mode < LT_MODES; mode++)
        for (int round = 0; round < 20; round++) {
            lua_State *L = lt_open((lt_mode)mode);
            lt_run(L, before_code);
            hak_lua_heap *heap =
                switch_to(L, round % 4 < 2 ? HAK_LUA_LANES_ALL
                                           : HAK_LUA_LANES_TINY);
            lt_run(L, after_code);
            cr_expect_eq(lt_live(heap), lt_counted(L), "%s",
                         lt_mode_name((lt_mode)mode));
            if (mode != LT_HEAP && mode != LT_TINY && round % 2)
                lua_close(L);
            else
                hak_lua_close(L);
        }
}

/*
 * Old blocks that HAKMEM made, for another lua_Alloc: an address in the range
 * alone does not say that a block is the new heap's.
 */
static void *on_hakmem(void *ud, void *ptr, size_t osize, size_t nsize)
{
    checker *c = ud;
    c->blocks += (ptr == NULL && nsize > 0) - (ptr != NULL && nsize == 0);
    c->live += nsize - (ptr ? osize : 0);
    if (nsize > 0)
        return hak_realloc(ptr, nsize);
    hak_free(ptr);
    return NULL;
}

static void *on_another_heap(void *ud, void *ptr, size_t osize, size_t nsize)
{
    return hak_lua_alloc(((void **)ud)[0], ptr, osize, nsize);
}

Test(switching, from_an_allocator_on_hakmem)
{
    lt_needs(LT_52);
    checker c = {0};
    lua_State *L = lua_newstate(on_hakmem, &c);
    cr_assert(L);
    luaL_openlibs(L);
    lt_run(L, before_code);
    cr_assert(hak_lua_switch(L, NULL));
    lt_run(L, after_code);
    lua_close(L);
    expect_all_back(&c);
}

Test(switching, from_an_allocator_on_another_heap)
{
    lt_needs(LT_52);
    hak_lua_heap *heap = hak_lua_heap_new(NULL);
    void *ud[] = {heap};
    lua_State *L = lua_newstate(on_another_heap, ud);
    cr_assert(L);
    luaL_openlibs(L);
    lt_run(L, before_code);
    cr_assert(hak_lua_switch(L, NULL));
    lt_run(L, after_code);
    lua_close(L);
    cr_expect_eq(lt_live(heap), (size_t)0, "%zu bytes did not come back",
                 lt_live(heap));
    hak_lua_heap_delete(heap);
}

/* Its large blocks are HAKMEM's as well, its small ones are not. */
static void *large_on_hakmem(void *ud, void *ptr, size_t osize, size_t nsize)
{
    checker *c = ud;
    void *moved;
    if (nsize == 0 && ptr == NULL)
        return NULL;
    c->blocks += (ptr == NULL) - (nsize == 0);
    c->live += nsize - (ptr ? osize : 0);
    moved = nsize == 0     ? NULL
            : nsize > 1024 ? hak_malloc(nsize)
                           : malloc(nsize);
    if (moved && ptr)
        memcpy(moved, ptr, osize < nsize ? osize : nsize);
    if (ptr && osize > 1024)
        hak_free(ptr);
    else
        free(ptr);
    return moved;
}

Test(switching, from_an_allocator_with_large_blocks_on_hakmem)
{
    lt_needs(LT_52);
    for (int lanes = HAK_LUA_LANES_TINY; lanes <= HAK_LUA_LANES_ALL; lanes++) {
        checker c = {0};
        lua_State *L = lua_newstate(large_on_hakmem, &c);
        cr_assert(L);
        luaL_openlibs(L);
        lt_run(L, before_code);
        lt_run(L, "big = ('b'):rep(70000) huge = ('h'):rep(3000000)\n"
                  "list = {} for i = 1, 9000 do list[i] = i end");
        switch_to(L, (hak_lua_lanes)lanes);
        lt_run(L, after_code);
        lt_run(L, "for i = 9001, 30000 do list[i] = i end\n"
                  "assert(#big == 70000 and #huge == 3000000)\n"
                  "big, huge, list = nil collectgarbage()");
        lua_close(L);
        expect_all_back(&c);
    }
}

Test(switching, nothing_is_said)
{
    lt_needs(LT_52);
    lt_text text = {0};
    lt_stderr capture = lt_stderr_begin();
    for (int i = 0; i < 10; i++) {
        lua_State *L = lt_open(i % 2 ? LT_STOCK : LT_THREAD);
        lt_run(L, before_code);
        cr_assert(hak_lua_switch(L, NULL));
        if (i % 3)
            lt_run(L, after_code);
        lua_close(L);
    }
    lt_stderr_end(&capture, &text);
    cr_expect_str_eq(lt_text_get(&text), "", "%s", lt_text_get(&text));
}

Test(switching, bad_config)
{
    checker c;
    lua_State *L = open_checked(&c);
    hak_lua_config config = {.size = 1};
    errno = 0;
    cr_expect_null(hak_lua_switch(L, &config));
    cr_expect_eq(errno, EINVAL);
    cr_expect_null(hak_lua_heap_of(L));
    lt_run(L, before_code);
    lua_close(L);
    expect_all_back(&c);
}

Test(switching, with_a_limit)
{
    lt_needs(LT_52);
    checker c;
    lua_State *L = open_checked(&c);
    lt_run(L, before_code);
    lt_collect(L);
    hak_lua_config config = {.size = sizeof config,
                             .limit = lt_counted(L) + 100000};
    hak_lua_heap *heap = hak_lua_switch(L, &config);
    cr_assert(heap);
    cr_expect_eq(lt_stats(heap).limit, config.limit);
    lt_run(L, "local ok, message = pcall(function()\n"
              "    local t = {} for i = 1, 1e7 do t[i] = {i} end\n"
              "end)\n"
              "assert(not ok and message == 'not enough memory')");
    cr_expect_leq(lt_stats(heap).peak_bytes, config.limit);
    cr_expect_gt(lt_stats(heap).limit_refusals, (uint64_t)0);
    hak_lua_heap_limit(heap, 0);
    lt_run(L, after_code);
    lua_close(L);
    expect_all_back(&c);
}

/*
 * The old allocator has nothing left: with lanes = tiny an error for what is
 * large, no more.
 */
Test(switching, old_allocator_runs_dry)
{
    lt_needs(LT_54);
    checker c;
    lua_State *L = open_checked(&c);
    lt_run(L, before_code);
    switch_to(L, HAK_LUA_LANES_TINY);
    c.dry = true;
    lt_run(L, "for i = 1, 5000 do local t = {i, 'n' .. i} end\n"
              "for i = 1, 20 do\n"
              "    local ok, message = pcall(string.rep, 'x', 5000)\n"
              "    assert(not ok and message == 'not enough memory')\n"
              "    assert(#string.rep('x', 700) == 700)\n"
              "end");
    c.dry = false;
    lt_run(L, after_code);
    lua_close(L);
    expect_all_back(&c);
}

/* With all lanes nobody needs it. */
Test(switching, all_lanes_need_no_old_allocator)
{
    lt_needs(LT_52);
    checker c;
    lua_State *L = open_checked(&c);
    lt_run(L, before_code);
    switch_to(L, HAK_LUA_LANES_ALL);
    c.dry = true;
    lt_run(L, "assert(#string.rep('x', 5000000) == 5000000)");
    lt_run(L, after_code);
    c.dry = false;
    lua_close(L);
    expect_all_back(&c);
}

/* The heap of a switched state ends with it: no growth over many. */
Test(switching, many)
{
    long count = lt_scaled(3000), first = 0;
    for (long i = 0; i < count; i++) {
        lua_State *L = lt_open(i % 2 ? LT_STOCK : LT_THREAD);
        cr_assert(hak_lua_switch(L, NULL));
        lt_run(L, "local t = {} for i = 1, 100 do t[i] = {i} end");
        lua_close(L);
        if (i == 500)
            first = lt_resident();
    }
    if (lt_native())
        cr_expect_lt(lt_resident(), first + 1024, "%ld KB, then %ld KB", first,
                     lt_resident());
}

/* ---- ends and leaks ------------------------------------------------------ */

/* Takes a block as a C library would, and says by which it is freed. */
static void *keep_block(lua_State *L, size_t size, lua_Alloc *f, void **ud)
{
    *f = lua_getallocf(L, ud);
    void *p = (*f)(*ud, NULL, 0, size);
    cr_assert(p);
    return p;
}

static void expect_line(const lt_text *text, const char *part)
{
    const char *line = lt_text_get(text), *end = strchr(line, '\n');
    cr_expect(end && end[1] == '\0', "not one line: %s", line);
    cr_expect(strstr(line, part), "no %s in: %s", part, line);
}

/* However a switched state is closed, what is left is said, once. */
static void leave_blocks(void (*close)(lua_State *L), size_t size)
{
    checker c;
    hak_lua_config config = {.size = sizeof config, .name = "keeper"};
    lua_State *L = open_checked(&c);
    lt_run(L, before_code);
    cr_assert(hak_lua_switch(L, &config));
    lt_run(L, after_code);
    lua_Alloc f;
    void *ud, *p = keep_block(L, size, &f, &ud);
    lt_text text = {0};
    char bytes[32];
    snprintf(bytes, sizeof bytes, ": %zu bytes", size);
    lt_stderr capture = lt_stderr_begin();
    memset(p, 1, size);
    close(L);
    if (close == lua_close) {
        memset(p, 2, size); /* it is still valid, */
        f(ud, p, size, 0);  /* and the heap ends with it, without a word */
    }
    lt_stderr_end(&capture, &text);
    expect_line(&text, bytes);
    expect_line(&text, "\"keeper\"");
    lt_text_free(&text);
    expect_all_back(&c);
}

Test(switching, a_block_left_is_said_by_lua_close)
{
    lt_needs(LT_52);
    leave_blocks(lua_close, 777);
    leave_blocks(lua_close, 100000);
    leave_blocks(lua_close, 16);
}

Test(switching, a_block_left_is_said_by_hak_lua_close)
{
    lt_needs(LT_52);
    leave_blocks(hak_lua_close, 777);
    leave_blocks(hak_lua_close, 100000);
}

static void expect_silent_end(void (*close)(lua_State *L), bool box)
{
    checker c;
    lua_State *L = open_checked(&c);
    lua_Alloc f;
    void *ud, *early = box ? keep_block(L, 30000, &f, &ud) : NULL;
    lt_text text = {0};
    lt_stderr capture = lt_stderr_begin();
    cr_assert(hak_lua_switch(L, NULL));
    if (box) {
        lua_getallocf(L, &ud);
        hak_lua_alloc(ud, early, 30000, 0);
    }
    /* Through the same live bytes up and down, at every size. */
    lt_run(L, "local t = {} for i = 1, 3000 do t[i] = {i} end");
    close(L);
    lt_stderr_end(&capture, &text);
    cr_expect_str_eq(lt_text_get(&text), "");
    lt_text_free(&text);
    expect_all_back(&c);
}

/*
 * Lua does not count what C code had from the allocator before the switch (the
 * box of a luaL_Buffer): our count is then less than what is live, and must not
 * be taken for the end when it comes to 0.
 */
Test(switching, blocks_that_lua_does_not_count)
{
    for (int box = 0; box < 2; box++) {
        expect_silent_end(lua_close, box);
        expect_silent_end(hak_lua_close, box);
    }
}

/* A Lua whose main thread does not begin LUA_EXTRASPACE into its block. */
typedef struct shifted {
    hak_lua_heap *heap;
    const void *main;
    size_t by;
    long ends;
} shifted;

static void *shifted_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    shifted *s = ud;
    size_t by = 0;
    if (ptr && !nsize && (uintptr_t)s->main - (uintptr_t)ptr < osize) {
        by = s->by;
        s->ends++;
    }
    return hak_lua_alloc(s->heap, ptr ? (char *)ptr - by : NULL,
                         ptr ? osize + by : osize, nsize);
}

static void *unshift_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    shifted *s = ud;
    if (!ptr || nsize)
        return realloc(ptr, nsize);
    free(s->ends ? (char *)ptr + s->by : ptr);
    (void)osize;
    return NULL;
}

Test(switching, a_main_thread_that_lies_elsewhere)
{
    long first = 0, count = lt_scaled(2000);
    for (long i = 0; i < count; i++) {
        shifted s = {.by = (size_t)(i % 8) * 8};
        lua_State *L = lua_newstate(unshift_alloc, &s);
        cr_assert(L);
        luaL_openlibs(L);
        s.heap = hak_lua_switch(L, NULL);
        s.main = L;
        lua_setallocf(L, shifted_alloc, &s);
        /* The block is said to be larger than what Lua counted for it. */
        hak_lua_alloc(s.heap, NULL, 0, 0);
        lt_run(L, "local t = {} for i = 1, 500 do t[i] = {i} end");
        lua_close(L);
        cr_assert_eq(s.ends, 1);
        if (i == count / 2)
            first = lt_resident();
    }
    if (lt_native())
        cr_expect_lt(lt_resident(), first + 512, "heaps are left: %ld, %ld KB",
                     first, lt_resident());
}

/* ---- no memory for a heap ------------------------------------------------- */

void haki_os_test_refuse(unsigned n, bool forever);

/* The module says so once; the state stays where it is, the script runs. */
Test(switching, module_without_a_heap)
{
    lt_needs(LT_54);
    checker c;
    lua_State *L = open_checked(&c);
    lt_text text = {0};
    lt_stderr capture = lt_stderr_begin();
    haki_os_test_refuse(1, true);
    luaL_requiref(L, "hakmem", luaopen_hakmem, 1);
    lua_settop(L, 0);
    haki_os_test_refuse(0, false);
    lt_stderr_end(&capture, &text);
    cr_expect(strstr(lt_text_get(&text), "keeps its allocator\n"), "%s",
              lt_text_get(&text));
    cr_expect_eq(lua_getallocf(L, NULL), checked_alloc);
    lt_run(L, "local s = hakmem.stats()\n"
              "assert(s.live_bytes == 0 and s.types.string.count == 0)\n"
              "assert(hakmem.limit() == 0 and hakmem.trim() == 0)\n"
              "assert(hakmem.limit(0) == 0 and hakmem.reserve() == 0)\n"
              "assert(hakmem.on_limit() == 0 and hakmem.version)\n"
              "assert(#hakmem.heaps() == 0)\n"
              "assert(hakmem.types().table.live_count > 0)\n"
              "for _, f in ipairs {hakmem.limit, hakmem.reserve,\n"
              "                    hakmem.on_limit} do\n"
              "    local ok, message = pcall(f, 1000, print)\n"
              "    assert(not ok and message:find 'no heap', message)\n"
              "end\n");
    lt_run(L, before_code);
    lt_run(L, after_code);
    lua_close(L);
    lt_text_free(&text);
    expect_all_back(&c);
}

/* ---- the module in a state of ours ------------------------------------- */

Test(switching, module_on_a_heap_of_ours)
{
    lt_needs(LT_53);
    lua_State *L = lt_open(LT_HEAP);
    hak_lua_heap *heap = hak_lua_heap_of(L);
    luaL_requiref(L, "hakmem", luaopen_hakmem, 1);
    lua_settop(L, 0);
    cr_expect_eq(hak_lua_heap_of(L), heap);
    lt_run(L, "local s = hakmem.stats()\n"
              "assert(math.type(s.live_bytes) == 'integer')\n"
              "assert(s.limit == 0)\n"
              "local count = collectgarbage('count') * 1024\n"
              "local live = hakmem.stats().live_bytes\n"
              "assert(live >= count and live < count + 4096)\n"
              "assert(hakmem.limit(1 << 30) == 0)\n"
              "assert(hakmem.limit(0) == 1 << 30)\n");
    hak_lua_close(L);
}

Test(switching, module_on_the_thread_heap)
{
    lt_needs(LT_52);
    lua_State *L = lt_open(LT_THREAD);
    lt_run(L, before_code);
    luaL_requiref(L, "hakmem", luaopen_hakmem, 1);
    lua_settop(L, 0);
    lt_run(L, after_code);
    lt_run(L, "assert(hakmem.stats().foreign_frees > 0)");
    lua_close(L);
}
