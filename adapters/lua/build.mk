# The Lua 5.4 adapter: libhakmem_lua.a for hosts, lua/hakmem.so for stock Luas.
#
#   LUA_CFLAGS, LUA_LIBS  where its headers and its library are; pkg-config tells
#   LUADIR                where Lua looks for modules
#   LUA_PACKAGE           pkg-config's name of it, for hakmem_lua.pc
#
# Without lua.h all of it is left out. Other versions of Lua: others.mk.

# For another processor or C library: Lua's own sources, where they have been fetched
# (`make lua-source`), or Debian's headers.
LUA_SOURCE := build/sources/lua5.4
ifneq ($(CROSS)$(filter musl%,$(CC)),)
ifneq ($(wildcard $(LUA_SOURCE)/lua5.4-deb-multiarch.h),)
LUA_CFLAGS ?= -I$(LUA_SOURCE)/src -I$(LUA_SOURCE)
LUA_LIBS ?= -L$(BUILD)/stock -llua -Wl,-rpath,$(abspath $(BUILD)/stock)
LUA_BUILT := $(BUILD)/stock/liblua.so
else
LUA_CFLAGS ?= -I/usr/include/lua5.4 -idirafter \
    /usr/include/$(shell gcc -print-multiarch 2>/dev/null)
endif
endif

LUA_CFLAGS ?= $(shell pkg-config --cflags lua5.4 2>/dev/null || \
    echo -I/usr/include/lua5.4)
LUA_LIBS ?= $(shell pkg-config --libs lua5.4 2>/dev/null || echo -llua5.4)
LUA_CFLAGS := $(LUA_CFLAGS)
LUA_LIBS := $(LUA_LIBS)
LUADIR ?= $(LIBDIR)/lua/5.4
FLAGS_ALSO += $(LUA_CFLAGS) $(LUA_LIBS)

LUA_MODULE := $(BUILD)/lua/hakmem.so
LUA_OBJECTS := $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard adapters/lua/*.c))
HAVE_LUA := $(shell printf '\043include <lua.h>\n' | \
    $(CC) $(LUA_CFLAGS) $(CFLAGS) -E - >/dev/null 2>&1 && echo 1)

# Which Lua; not what some environment has of that name.
ifneq ($(filter command file override,$(firstword $(origin LUA))),)
else
LUA := 5.4
endif

.PHONY: lua bench-lua demo-lua check-lua-sampled
ifeq ($(HAVE_LUA),1)

ALL += lua
LIBS += libhakmem_lua.a
HEADERS += include/hakmem_lua.h
PACKAGES += adapters/lua/hakmem_lua.pc.in
INSTALL += 755:$(LUA_MODULE):$(LUADIR)/
DEMOS += demo-lua

lua: $(if $(filter 5.4,$(LUA)),$(LUA_MODULE),lua-other) ## use: build the Lua module, for LUA=5.1|5.2|5.3|5.4|5.5|luajit
	@:

# A program per file in tests/lua. Some are of the stock interpreter alone, which has no
# sanitizer.
LUA_TESTS := $(patsubst %.c,$(BUILD)/%,$(filter-out \
    $(if $(filter asan tsan,$(VARIANT)),tests/lua/profile_module.c) \
    $(if $(filter asan tsan valgrind,$(VARIANT)),tests/lua/guards.c), \
    $(wildcard tests/lua/*.c)))
TESTS += $(LUA_TESTS)
$(eval $(call criterion,$(LUA_TESTS),$(BUILD)/libhakmem_lua_testing.a,$(LUA_LIBS)))

$(LUA_TESTS): $(LUA_BUILT)

check-lua-sampled: $(BUILD)/tests/lua/scripts ## test: Lua's scripts, each block a sample (slow)
	@HAKMEM_PROFILE_RATE=1 HAKMEM_TEST_SCALE=20 $<

else

LEFT_OUT += $(call left_out,the Lua adapter,no lua.h,liblua5.4-dev)
lua: $(if $(filter 5.4,$(LUA)),,lua-other)
	@$(if $(filter 5.4,$(LUA)),$(call without,the Lua module,no lua.h,liblua5.4-dev),:)

endif

$(BUILD)/libhakmem_lua.a: $(CORE_OBJECTS) $(LUA_OBJECTS)
$(BUILD)/libhakmem_lua_testing.a: $(CORE_TESTING) \
    $(LUA_OBJECTS:$(BUILD)/obj/%=$(BUILD)/testing/%)

$(BUILD)/obj/adapters/lua/%.o $(BUILD)/testing/adapters/lua/%.o \
    $(BUILD)/testing/tests/lua/%.o $(BUILD)/obj/bench/bench_lua.o: \
    FLAGS += $(LUA_CFLAGS)

# Lua unloads its C libraries before it frees its last objects, hence
# nodelete. liblua is not linked: the program that loads the module has it.
$(LUA_MODULE): $(CORE_OBJECTS) $(LUA_OBJECTS) adapters/lua/module.map
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -shared -o $@ $(filter %.o,$^) -Wl,-z,nodelete \
	    -Wl,--exclude-libs,ALL -Wl,--version-script=adapters/lua/module.map

# Lua 5.4 has a name of its own on every system; with none of them found the
# package leaves it to the host.
LUA_PACKAGE ?= $(shell for name in lua5.4 lua-5.4 lua54 lua; do \
    pkg-config --exists "$$name >= 5.4" "$$name < 5.5" 2>/dev/null && \
    echo $$name && break; done)
PACKAGE_SED += $(if $(LUA_PACKAGE),-e 's|@LUA@|$(LUA_PACKAGE)|',-e /@LUA@/d)

# ---- Lua itself, of its sources ------------------------------------------------

.PHONY: lua-source
lua-source: ## test: fetch Lua's sources, for check-aarch64, check-riscv64, check-musl
	@[ -f $(LUA_SOURCE)/lua5.4-deb-multiarch.h ] || { \
	    tests/nginx/static/sources.sh build/sources lua5.4 && \
	    echo '#define DEB_HOST_MULTIARCH "none"' >$(LUA_SOURCE)/lua5.4-deb-multiarch.h; }

STOCK_LUA := $(patsubst $(LUA_SOURCE)/src/%.c,$(BUILD)/stock/%.o,$(filter-out \
    %/luac.c,$(wildcard $(LUA_SOURCE)/src/*.c)))
$(STOCK_LUA): $(BUILD)/stock/%.o: $(LUA_SOURCE)/src/%.c $(STAMP)
	$(SAY) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) -O2 -fPIC -std=gnu99 -DLUA_COMPAT_5_3 -DLUA_USE_POSIX -DLUA_USE_DLOPEN \
	    -I$(LUA_SOURCE) -c $< -o $@
$(BUILD)/stock/liblua.a: $(filter-out %/lua.o,$(STOCK_LUA))
$(BUILD)/stock/liblua.so: $(filter-out %/lua.o,$(STOCK_LUA))
	$(SAY) LINK $@
	$(Q)$(CC) -shared -Wl,-soname,$(@F) -o $@ $^ -lm -ldl
$(BUILD)/stock/lua5.4: $(BUILD)/stock/lua.o $(BUILD)/stock/liblua.so
	$(SAY) LINK $@
	$(Q)$(CC) -rdynamic -o $@ $< $(LUA_LIBS) -lm -ldl

# ---- benchmarks ---------------------------------------------------------------

# Not position independent: bench_lua fixes Lua's hash seed that way.
BENCH_LUA := $(BUILD)/bench/bench_lua
$(BUILD)/obj/bench/bench_lua.o: FLAGS += -fno-pic -fno-pie
$(BENCH_LUA): $(BUILD)/obj/bench/bench_lua.o $(BUILD)/libhakmem_lua.a
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -no-pie -o $@ $^ $(LUA_LIBS) -lm -ldl

bench-lua: ## bench: Lua programs on HAKMEM, stock Lua and mimalloc, in full
	@.ci/install-deps bench
	@$(MAKE) lib lua $(BENCH_LUA)
	@HAKMEM_BUILD=$(BUILD) $(PYTHON) bench/lua_report.py

demo-lua:
	@$(MAKE) lib lua $(BENCH_LUA)
	@HAKMEM_BUILD=$(BUILD) $(PYTHON) bench/lua_report.py --quick
	$(call demo_profile,lua,lua5.4)

include adapters/lua/others.mk
