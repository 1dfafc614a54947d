# HAKMEM's build. `make help` lists the targets.
#
#   VARIANT  release (default), debug, asan, ubsan, tsan or valgrind
#   BUILD    where everything goes; default build/VARIANT
#   HARDENED 1: the hardened build, see core/guard/hard.h; BUILD ends in -hardened
#   CC       the compiler, gcc or clang
#   WERROR   1: warnings are errors
#   V        1: show the commands
#   PREFIX   where `make install` installs, default /usr/local; LIBDIR,
#            INCLUDEDIR, MANDIR, LUADIR, PKGCONFIGDIR: parts of it elsewhere;
#            DESTDIR: a directory put before all of them
#
# What is built:
#   $(BUILD)/libhakmem.so       malloc and its kin: to preload, or -lhakmem
#   $(BUILD)/libhakmem.a        the same for static linking: leads the linker to
#                               libhakmem_malloc.a and hakmem_malloc.o beside it
#   $(BUILD)/libhakmem_core.a   the core alone, hak_* names: include/hakmem.h
#   $(BUILD)/libhakmem_lua.a    the core and the Lua adapter
#   $(BUILD)/lua/hakmem.so      the Lua module: LUA_CPATH=$(BUILD)/lua/?.so
#   $(BUILD)/bench/NAME, $(BUILD)/tests/unit/NAME, $(BUILD)/tests/lua/NAME

VARIANT ?= release
HARDENED ?= 0
BUILD ?= build/$(VARIANT)$(if $(filter 1,$(HARDENED)),-hardened)
WERROR ?= 0
V ?= 0
PYTHON ?= python3
CLANG_FORMAT ?= clang-format

# make's own default for CC is cc, which a bare Debian may lack.
ifeq ($(origin CC),default)
CC := gcc
endif
# C++ is for tests alone.
ifeq ($(origin CXX),default)
CXX := $(if $(findstring clang,$(CC)),clang++,g++)
endif

MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
# Keep the objects of programs that are linked by a pattern rule.
.SECONDARY:

ifeq ($(V),1)
Q :=
SAY := @:
else
Q := @
SAY := @printf '  %-5s %s\n'
endif

# ---- flags ------------------------------------------------------------------

VARIANT_release := -O2
VARIANT_debug := -O0 -DHAK_DEBUG=1
VARIANT_asan := -O1 -DHAK_DEBUG=1 -DHAK_SMALL_RANGE=1 -fno-omit-frame-pointer \
    -fsanitize=address -fno-sanitize-recover=all
VARIANT_ubsan := -O1 -DHAK_DEBUG=1 -fsanitize=undefined \
    -fno-sanitize-recover=all
VARIANT_tsan := -O1 -DHAK_DEBUG=1 -DHAK_SMALL_RANGE=1 -fsanitize=thread \
    -fno-sanitize-recover=all
VARIANT_valgrind := -O1 -DHAK_DEBUG=1 -DHAK_SMALL_RANGE=1

# What `make fuzz` builds: the release and the asan variant as libFuzzer needs
# them, with clang.
VARIANT_fuzz := $(VARIANT_release) -fsanitize=fuzzer-no-link
VARIANT_fuzzasan := $(VARIANT_asan) -fsanitize=fuzzer-no-link

VARIANTS := release debug asan ubsan tsan valgrind fuzz fuzzasan
ifeq ($(filter $(VARIANT),$(VARIANTS)),)
$(error VARIANT=$(VARIANT) is unknown; use one of: $(VARIANTS))
endif

LUA_CFLAGS ?= $(shell pkg-config --cflags lua5.4 2>/dev/null || \
    echo -I/usr/include/lua5.4)
LUA_LIBS ?= $(shell pkg-config --libs lua5.4 2>/dev/null || echo -llua5.4)
LUA_CFLAGS := $(LUA_CFLAGS)
LUA_LIBS := $(LUA_LIBS)

VERSION := $(shell cat VERSION)
VERSION_MAJOR := $(firstword $(subst ., ,$(VERSION)))

# Debian's valgrind can't read the debug information that clang 14 writes.
DEBUG_INFO := $(if $(findstring clang,$(CC)),-gdwarf-4,-g)

FLAGS := -std=gnu11 -D_GNU_SOURCE= $(DEBUG_INFO) -fPIC -fvisibility=hidden \
    -ftls-model=initial-exec -Wall -Wextra -Wpedantic \
    $(if $(filter 1,$(WERROR)),-Werror) -pthread -Iinclude -Icore \
    -DHAK_VERSION_STRING='"$(VERSION)"' $(VARIANT_$(VARIANT)) \
    $(if $(filter 1,$(HARDENED)),-DHAK_HARDENED=1)

# CFLAGS and LDFLAGS are the user's and come last. But -flto: what a member of
# an archive defines in assembler, or is put together by `ld -r`, would be lost.
COMPILE = $(CC) $(FLAGS) $(CFLAGS) -fno-lto -MMD -MP
LINK = $(CC) -pthread $(filter -fsanitize=%,$(FLAGS)) $(LDFLAGS)

# Everything compiled depends on this file, which changes when a flag does.
STAMP := $(BUILD)/flags
FLAGS_NOW := $(strip $(CC) $(FLAGS) $(CFLAGS) $(LDFLAGS) $(LUA_CFLAGS) $(LUA_LIBS))
ifneq ($(file <$(STAMP)),$(FLAGS_NOW))
$(STAMP): force
endif
$(STAMP):
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(FLAGS_NOW))' >$@

# ---- what is made of what ---------------------------------------------------

# libc_real.c is for the libraries in which malloc is ours, libc_plain.c for
# the others.
NEED := core/libc_names/wrap_need.c
WRAP := $(filter-out $(NEED),$(wildcard core/libc_names/wrap*.c)) core/system/libc_real.c
CORE := $(filter-out $(WRAP) $(NEED) $(if $(filter 1,$(HARDENED)),,core/guard/hard%.c core/front/hard%.c), \
    $(wildcard core/*/*.c))
LUA := $(wildcard adapters/lua/*.c)

# The address and thread sanitizers are a malloc themselves.
SHARED := $(if $(filter asan tsan,$(VARIANT)),,libhakmem.so)

# A program per file in tests/unit (the core, white box) and in tests/lua;
# tests/support is linked into all of them.
TESTS := $(patsubst %.c,$(BUILD)/%,$(filter-out \
    $(if $(filter 1,$(HARDENED)),,tests/unit/hard%.c), \
    $(wildcard tests/unit/*.c tests/lua/*.c tests/nginxunit/*.c)))
SUPPORT := $(patsubst %.c,$(BUILD)/testing/%.o,$(wildcard tests/support/*.c))

# To preload: a kernel with other pages, as far as AT_PAGESZ tells.
OTHER_PAGES := $(BUILD)/tests/libpages.so
$(OTHER_PAGES): tests/wrap/programs/libpages.c $(STAMP)
	$(SAY) CC $@
	@mkdir -p $(@D)
	$(Q)$(CC) -shared -fPIC -D_GNU_SOURCE -Wall -Wextra -o $@ $<

# Found before libgit2 by the tests under valgrind; see its source.
NO_GIT := $(if $(filter valgrind,$(VARIANT)),$(BUILD)/tests/nogit/made)
$(BUILD)/tests/nogit/made: tests/support/nogit/libgit2.c $(STAMP)
	$(SAY) CC $(@D)
	@mkdir -p $(@D)
	$(Q)name=$$(ldd "$$($(CC) -print-file-name=libcriterion.so)" | \
	    awk '/libgit2/ {print $$1}') && \
	{ [ -z "$$name" ] || $(CC) -shared -fPIC -Wall -Wextra \
	    -Wl,-soname,$$name -o $(@D)/$$name $<; } && touch $@

# One source, a program per allocator; `none` is the loop by itself.
MIXED := hakmem system mimalloc jemalloc tcmalloc none
BENCHES := $(MIXED:%=$(BUILD)/bench/bench_random_mixed_%)
# One program for every allocator that is preloaded.
BENCH_MALLOC := $(BUILD)/bench/bench_malloc
BENCH_LUA := $(BUILD)/bench/bench_lua

# ---- libraries --------------------------------------------------------------

all: lib lua ## build the libraries and the Lua module
	@:

lib: $(SHARED:%=$(BUILD)/%) $(BUILD)/libhakmem.a $(BUILD)/libhakmem_core.a \
    $(BUILD)/libhakmem_lua.a ## build the libraries
	@:

lua: $(BUILD)/lua/hakmem.so ## build the Lua module
	@:

$(BUILD)/libhakmem_core.a: $(CORE:%.c=$(BUILD)/obj/%.o)
$(BUILD)/libhakmem_lua.a: $(CORE:%.c=$(BUILD)/obj/%.o) \
    $(LUA:%.c=$(BUILD)/obj/%.o)

# The same two for the tests: compiled with HAK_TESTING, hooks included.
$(BUILD)/libhakmem_testing.a: $(CORE:%.c=$(BUILD)/testing/%.o)
$(BUILD)/libhakmem_lua_testing.a: $(CORE:%.c=$(BUILD)/testing/%.o) \
    $(LUA:%.c=$(BUILD)/testing/%.o)

$(BUILD)/%.a:
	$(SAY) AR $@
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

$(BUILD)/obj/adapters/lua/%.o $(BUILD)/testing/adapters/lua/%.o \
    $(BUILD)/testing/tests/lua/%.o $(BUILD)/obj/bench/%.o: \
    FLAGS += $(LUA_CFLAGS)

$(BUILD)/obj/%.o: %.c $(STAMP)
	$(SAY) CC $<
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -c $< -o $@

$(BUILD)/testing/%.o: %.c $(STAMP)
	$(SAY) CC "$< (testing)"
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -DHAK_TESTING=1 -c $< -o $@

# Lua unloads its C libraries before it frees its last objects, hence
# nodelete. liblua is not linked: the program that loads the module has it.
$(BUILD)/lua/hakmem.so: $(CORE:%.c=$(BUILD)/obj/%.o) \
    $(LUA:%.c=$(BUILD)/obj/%.o) adapters/lua/module.map
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -shared -o $@ $(filter %.o,$^) -Wl,-z,nodelete \
	    -Wl,--exclude-libs,ALL -Wl,--version-script=adapters/lua/module.map

# ---- the Python module ------------------------------------------------------

# For PYTHON, whatever its version: hakmem_py/ in $(PYTHON_DIR), which is what
# PYTHONPATH has to name, compiled as pip does it. Wheels are setup.py's.
ifneq ($(filter python% check-python% bench-python%,$(MAKECMDGOALS)),)
PYTHON_SAYS := $(shell $(PYTHON) -c 'import sysconfig as s, platform as p; \
    print(p.python_version(), s.get_path("include"), \
        s.get_config_var("EXT_SUFFIX"))')
endif
PYTHON_DIR = $(BUILD)/python-$(word 1,$(PYTHON_SAYS))
PYTHON_MODULE = $(PYTHON_DIR)/hakmem_py/_hakmem$(word 3,$(PYTHON_SAYS))
PYTHON_OBJECTS = $(patsubst adapters/python/src/%.c,$(PYTHON_DIR)/obj/%.o, \
    $(wildcard adapters/python/src/*.c))

.PHONY: python check-python check-python-loans
python: $(PYTHON_MODULE) ## build hakmem_py for PYTHON, into $(BUILD)/python-VERSION
	$(Q)cp adapters/python/hakmem_py/*.py* adapters/python/hakmem_py/py.typed \
	    $(PYTHON_DIR)/hakmem_py
	$(Q)$(PYTHON) -m compileall -q $(PYTHON_DIR)/hakmem_py

# Some of the interpreter's headers are not pedantic.
$(PYTHON_DIR)/obj/%.o: adapters/python/src/%.c $(STAMP)
	$(SAY) CC "$< ($(word 1,$(PYTHON_SAYS)))"
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -isystem $(word 2,$(PYTHON_SAYS)) -c $< -o $@

$(PYTHON_MODULE): $(CORE:%.c=$(BUILD)/obj/%.o) $(PYTHON_OBJECTS) \
    adapters/python/src/module.map
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -shared -o $@ $(filter %.o,$^) -Wl,-z,nodelete \
	    -Wl,--version-script=adapters/python/src/module.map

# ---- the nginx module -------------------------------------------------------

# Debian's nginx-dev; or any source tree, with NGX_CONF_FLAGS for its configure.
NGINX_SRC ?= /usr/share/nginx/src
NGINX_DIR := $(BUILD)/nginx
NGINX_LIB := $(BUILD)/libhakmem_nginx.a
NGINX_MODULE := $(NGINX_DIR)/objs/ngx_http_hakmem_module.so
NGINX := $(wildcard adapters/nginx/hak_ngx*.c)

$(NGINX_LIB): $(CORE:%.c=$(BUILD)/obj/%.o) $(NGINX:%.c=$(BUILD)/obj/%.o)

.PHONY: nginx
nginx: $(NGINX_MODULE) ## build the module for NGINX_SRC, Debian's nginx if not set
	@:

$(NGINX_MODULE): export CC := $(CC)
$(NGINX_MODULE): export NGX_SANITIZE = $(filter -fsanitize=%,$(FLAGS))

# Built anew for another nginx: its version and what it is configured with.
NGINX_FOR := $(NGINX_DIR)/built-for
NGINX_FOR_NOW := $(strip $(NGINX_SRC) $(shell sed -n \
    's/^.define NGINX_VERSION *"\(.*\)"/\1/p' \
    '$(NGINX_SRC)/src/core/nginx.h' 2>/dev/null; \
    cksum <'$(NGINX_SRC)/conf_flags' 2>/dev/null) $(NGX_CONF_FLAGS))
ifneq ($(file <$(NGINX_FOR)),$(NGINX_FOR_NOW))
$(NGINX_FOR): force
endif
$(NGINX_FOR):
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(NGINX_FOR_NOW))' >$@
$(NGINX_MODULE): $(NGINX_FOR)

# Where Debian's nginx looks for modules, and for what loads them.
NGINX_MODULES_DIR ?= $(or $(shell nginx -V 2>&1 | \
    sed -n 's/.*--modules-path=\([^ ]*\).*/\1/p'),/usr/lib/nginx/modules)
NGINX_AVAILABLE_DIR ?= /usr/share/nginx/modules-available
NGINX_ENABLED_DIR ?= /etc/nginx/modules-enabled
NGINX_LOAD := mod-http-hakmem.conf
# The nginx whose configuration is looked through, with -p and -c if it has such.
NGINX_RUN ?= nginx
NGINX_INSTALLED = $(NGINX_MODULES_DIR)/$(notdir $(NGINX_MODULE)) \
    $(NGINX_AVAILABLE_DIR)/$(NGINX_LOAD) $(NGINX_ENABLED_DIR)/00-$(NGINX_LOAD)

# As root: make install-nginx && nginx -t && nginx -s reload
.PHONY: install-nginx uninstall-nginx
install-nginx: nginx ## install the module and what loads it, DESTDIR before it
	$(SAY) INST '$(DESTDIR)$(NGINX_MODULES_DIR)'
	$(Q)install -d $(NGINX_INSTALLED:%='$(DESTDIR)'"$$(dirname %)")
	$(Q)install -m 644 $(NGINX_MODULE) '$(DESTDIR)$(NGINX_MODULES_DIR)'
	$(Q)echo 'load_module modules/$(notdir $(NGINX_MODULE));' \
	    >'$(DESTDIR)$(NGINX_AVAILABLE_DIR)/$(NGINX_LOAD)'
	$(Q)ln -sf '$(NGINX_AVAILABLE_DIR)/$(NGINX_LOAD)' \
	    '$(DESTDIR)$(NGINX_ENABLED_DIR)/00-$(NGINX_LOAD)'

# What the configuration says of us is looked for before the module is gone.
uninstall-nginx: ## remove what install-nginx put there, name the lines that will fail
	$(SAY) RM '$(DESTDIR)$(NGINX_MODULES_DIR)'
	$(Q)lines=$$([ -n '$(DESTDIR)' ] || \
	    HAKMEM_SKIP='$(NGINX_ENABLED_DIR)/00-$(NGINX_LOAD)' \
	    adapters/nginx/conf_lines.sh $(NGINX_RUN)); \
	rm -f $(NGINX_INSTALLED:%='$(DESTDIR)'%) && \
	if [ -n "$$lines" ]; then \
	    echo 'nginx will refuse these lines now, take them out before it' \
	        'is reloaded or started:'; \
	    printf '%s\n' "$$lines"; \
	fi

$(NGINX_MODULE): $(NGINX_LIB) $(wildcard adapters/nginx/ngx_*.[chd]* \
    adapters/nginx/config adapters/nginx/module.map adapters/nginx/build.sh \
    include/hakmem_ngx.h)
	$(SAY) NGINX $@
	$(Q)adapters/nginx/build.sh $(NGINX_SRC) $(NGINX_DIR) $(NGINX_LIB)

.PHONY: check-nginx check-nginx-valgrind

# NGINX_TESTS: some, as unittest names them: NGINX_TESTS='test_serving'.
# HAKMEM_NGINX is another nginx than Debian's, NGINX_TESTED the module for it.
NGINX_TESTED ?= $(NGINX_MODULE)
check-nginx: nginx ## test the module in Debian's nginx
	@cd tests/nginx && HAKMEM_NGINX_MODULE='$(abspath $(NGINX_TESTED))' \
	    HAKMEM_NGINX='$(HAKMEM_NGINX)' \
	    HAKMEM_BUILD='$(abspath $(BUILD))' \
	    $(PYTHON) -m unittest $(or $(NGINX_TESTS),discover) \
	    $(if $(filter 1,$(V)),-v)

# A module of somebody else's, that uses the pools of hakmem_ngx.h.
NGINX_SAMPLE := $(BUILD)/nginx-sample/objs/ngx_http_hakmem_sample_module.so
$(NGINX_SAMPLE): $(NGINX_LIB) $(wildcard tests/nginx/sample/*) \
    include/hakmem_ngx.h adapters/nginx/build.sh
	$(SAY) NGINX $@
	$(Q)adapters/nginx/build.sh $(NGINX_SRC) $(BUILD)/nginx-sample \
	    $(NGINX_LIB) tests/nginx/sample
check-nginx: $(NGINX_SAMPLE)

# The tests preload them.
NGINX_DENY := $(BUILD)/tests/libdeny.so
$(NGINX_DENY): tests/nginx/libdeny.c $(STAMP)
	$(SAY) CC $@
	@mkdir -p $(@D)
	$(Q)$(CC) -shared -fPIC -D_GNU_SOURCE -Wall -Wextra -o $@ $<
NGINX_CRYPT := $(BUILD)/tests/nginx/unpatched/libcrypt.so.1
$(NGINX_CRYPT): tests/nginx/libcrypt.c $(STAMP)
	$(SAY) CC $@
	@mkdir -p $(@D) && echo 'XCRYPT_2.0 { crypt_r; };' >$(@D)/map
	$(Q)$(CC) -shared -fPIC -Wall -Wextra -Wl,-z,notext \
	    -Wl,-soname,$(@F),--version-script=$(@D)/map -o $@ $<
check-nginx: $(SHARED:%=$(BUILD)/%) $(OTHER_PAGES) $(NGINX_DENY) $(NGINX_CRYPT)

# The status page's shared zone by itself; nginx's headers come with a build.
NGINX_STRESS := $(BUILD)/tests/nginx/status_stress
$(NGINX_STRESS): tests/nginx/status_stress.c $(NGINX_MODULE) $(STAMP)
	$(SAY) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) -O2 -g -Wall -Wextra -Wno-unused-parameter \
	    $(if $(filter 1,$(WERROR)),-Werror) -Iadapters/nginx -Iinclude \
	    $(patsubst %,-I$(NGINX_DIR)/%,objs src/core src/event \
	        src/event/modules src/os/unix) $< -o $@
check-nginx: $(NGINX_STRESS)

check-nginx-valgrind: nginx ## the same module under valgrind, requests of every kind
	@$(MAKE) check-nginx NGINX_TESTS=valgrind_check

# An nginx with other people's modules compiled in, which takes minutes to
# build. NGINX_STATIC: how, as tests/nginx/static/build.sh names it, or several.
NGINX_STATIC ?= plain
NGINX_STATIC_DIR := $(BUILD)/nginx-static
NGINX_STATIC_SRC := $(NGINX_STATIC_DIR)/sources

.PHONY: check-nginx-static check-nginx-static-run
check-nginx-static: ## the module in an nginx with Lua, PAM, ModSecurity compiled in
	@.ci/install-deps nginx nginx-static
	@for kind in $(NGINX_STATIC); do \
	    $(MAKE) check-nginx-static-run NGINX_STATIC=$$kind || exit 1; done

check-nginx-static-run: $(NGINX_STATIC_DIR)/$(NGINX_STATIC)/module/tested
	@$(MAKE) check-nginx NGINX_TESTS='$(or $(NGINX_TESTS),static_check)' \
	    HAKMEM_NGINX='$(abspath $(<D)/../nginx)' \
	    NGINX_TESTED='$(<D)/objs/$(notdir $(NGINX_MODULE))'

$(NGINX_STATIC_SRC)/versions: tests/nginx/static/sources.sh
	$(SAY) FETCH $(@D)
	$(Q)$< $(@D)

$(NGINX_STATIC_DIR)/%/nginx: tests/nginx/static/build.sh \
    $(NGINX_STATIC_SRC)/versions
	$(SAY) NGINX $@
	$(Q)CC='$(CC)' NGINX_SRC='$(NGINX_SRC)' $< $(NGINX_STATIC_SRC) \
	    $(NGINX_STATIC_DIR) $*

.PRECIOUS: $(NGINX_STATIC_DIR)/%/nginx
$(NGINX_STATIC_DIR)/%/module/tested: $(NGINX_STATIC_DIR)/%/nginx $(NGINX_MODULE)
	$(SAY) NGINX $(@D)
	$(Q)NGX_CONF_FLAGS="$$(cat $(<D)/flags)" adapters/nginx/build.sh \
	    $(NGINX_STATIC_SRC)/nginx $(@D) $(NGINX_LIB) && touch $@

# BENCH_ARGS goes to nginx_report.py: '--insn', '--memory', '--rows static,tls'.
.PHONY: bench-nginx
bench-nginx: ## nginx with the module, stock and on other allocators
	@.ci/install-deps nginx nginx-bench
	@$(MAKE) nginx
	@HAKMEM_NGINX_MODULE='$(abspath $(NGINX_MODULE))' \
	    $(PYTHON) bench/nginx_report.py --csv $(BUILD)/bench-nginx.csv \
	    $(BENCH_ARGS)

# What stands for "a stock interpreter": Debian's, where there is one.
STOCK_PYTHON ?= $(firstword $(wildcard /usr/bin/python3) $(PYTHON))

.PHONY: check-python-suite check-python-suite-quick check-python-install wheel \
    bench-python bench-python-run check-python-trixie check-python-testing

# SUITE_ARGS goes to suite.py: SUITE_ARGS='test_gc test_multiprocessing_*'.
check-python-suite: python ## PYTHON's own tests on hakmem_py, failures as without it
	@$(PYTHON) tests/python/suite.py --hook $(PYTHON_DIR) --python $(PYTHON) \
	    --work $(BUILD)/python-suite $(SUITE_ARGS)

check-python-suite-quick: python ## the shorter ones of them
	@$(PYTHON) tests/python/suite.py --hook $(PYTHON_DIR) --python $(PYTHON) \
	    --work $(BUILD)/python-suite --quick $(SUITE_ARGS)

# With every CPython there is, or with PYTHONS.
check-python-install: ## build, install and remove the wheel in fresh environments
	@.ci/install-deps python
	@tests/python/install.sh $(PYTHONS)

# trixie: Debian 13, Python 3.13; testing: 3.14.
check-python-trixie check-python-testing: check-python-%: ## the tests under another Debian's Python, in a chroot (root, 1 GB)
	@.ci/install-deps chroot
	@tests/python/debian.sh $* $(BUILD)/$*

wheel: ## the source archive and a wheel for PYTHON, into $(BUILD)/dist
	@.ci/install-deps python
	@adapters/python/build.sh $(PYTHON) $(BUILD)/dist

# The Lua module is used if `make lua` has built it.
check-python: python $(OTHER_PAGES) $(SHARED:%=$(BUILD)/%) ## test hakmem_py under PYTHON
	@PYTHONPATH=$(abspath $(PYTHON_DIR)) PAGES=$(abspath $(OTHER_PAGES)) \
	    LIBRARY=$(abspath $(BUILD)/libhakmem.so) \
	    LUA_MODULE=$(abspath $(BUILD)/lua/hakmem.so) $(PYTHON) -m unittest discover \
	    -s tests/python $(if $(filter 1,$(V)),-v)

check-python-loans: ## the GIL's heap lent at every moment, for 20 s
	@$(MAKE) python PYTHON=$(PYTHON) BUILD=$(BUILD)/loans \
	    CFLAGS='$(CFLAGS) -DHAK_PY_EAGER=1'
	@PYTHONPATH=$(abspath $(BUILD)/loans/$(notdir $(PYTHON_DIR))) \
	    $(PYTHON) tests/python/loans.py 20

# ---- libhakmem.so, libhakmem.a ----------------------------------------------

# gcc shall not make a calloc of what our calloc does, nor may it take an
# exception that a new-handler throws for impossible.
$(WRAP:%.c=$(BUILD)/obj/%.o): FLAGS += -fexceptions -fno-builtin-malloc \
    -fno-builtin-calloc -fno-builtin-realloc -fno-builtin-free

WRAPPED := $(filter-out core/system/libc_plain.c,$(CORE)) $(WRAP)
SONAME := libhakmem.so.$(VERSION_MAJOR)

# -Bsymbolic: our own calls stay here, even in a program that has another copy
# of the core in it. nodelete: threads end in it when it would be gone. -ldl:
# before glibc 2.34 dlsym is there.
$(BUILD)/libhakmem.so: $(WRAPPED:%.c=$(BUILD)/obj/%.o)
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -shared -Wl,-soname,$(SONAME) -o $@ $(filter %.o,$^) \
	    -Wl,-Bsymbolic -Wl,-z,nodelete -Wl,-z,now -Wl,-z,defs \
	    -Wl,--no-as-needed -ldl -Wl,--as-needed
	$(Q)ln -sf $(@F) $(BUILD)/$(SONAME)

# One member holds all names of C, so that a program gets all of them or none.
$(BUILD)/obj/wrap_c.o: $(patsubst %.c,$(BUILD)/obj/%.o,core/system/libc_real.c \
    $(filter-out core/libc_names/wrap_new.c core/libc_names/wrap_nothrow.c core/libc_names/wrap_alone.c,$(WRAP)))
	$(SAY) LINK $@
	$(Q)$(LD) -r -o $@ $(sort $^)

$(BUILD)/obj/static/wrap_new.o: core/libc_names/wrap_new.c $(STAMP)
	$(SAY) CC "$< (static)"
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -fexceptions -DHAK_STATIC_NEW=1 -c $< -o $@

$(BUILD)/libhakmem_malloc.a: $(BUILD)/obj/wrap_c.o $(BUILD)/obj/static/wrap_new.o \
    $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out core/system/libc_plain.c,$(CORE)))

# From the archive malloc is taken if it is asked for, which hakmem_malloc.o
# does (core/libc_names/wrap_need.c). Linkers look beside the script first. Not EXTERN:
# mold does not know it.
$(BUILD)/hakmem_malloc.o: $(BUILD)/obj/$(NEED:.c=.o)
	$(Q)cp $< $@
$(BUILD)/libhakmem.a: $(BUILD)/libhakmem_malloc.a $(BUILD)/hakmem_malloc.o $(STAMP)
	$(SAY) LINK $@
	$(Q)printf '/* GNU ld script: HAKMEM %s */\nINPUT(%s %s)\n' $(VERSION) \
	    hakmem_malloc.o libhakmem_malloc.a >$@

# ---- tests ------------------------------------------------------------------

# clang's -Wpedantic finds fault with Criterion's assertions.
$(BUILD)/testing/tests/%.o: FLAGS += -Itests -Itests/support \
    $(if $(findstring clang,$(CC)),-Wno-gnu-zero-variadic-macro-arguments)

$(filter $(BUILD)/tests/unit/%,$(TESTS)): $(BUILD)/tests/%: \
    $(BUILD)/testing/tests/%.o $(SUPPORT) \
    $(BUILD)/libhakmem_testing.a
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $^ -lcriterion -lm -ldl

$(filter $(BUILD)/tests/lua/%,$(TESTS)): $(BUILD)/tests/%: \
    $(BUILD)/testing/tests/%.o $(SUPPORT) \
    $(BUILD)/libhakmem_lua_testing.a
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $^ -lcriterion $(LUA_LIBS) -lm -ldl

# The nginx adapter's part that knows nothing of nginx.
$(BUILD)/libhakmem_nginx_testing.a: $(CORE:%.c=$(BUILD)/testing/%.o) \
    $(NGINX:%.c=$(BUILD)/testing/%.o)
$(BUILD)/testing/tests/nginxunit/%.o: FLAGS += -Iadapters/nginx -Itests/unit
$(filter $(BUILD)/tests/nginxunit/%,$(TESTS)): $(BUILD)/tests/%: \
    $(BUILD)/testing/tests/%.o $(SUPPORT) $(BUILD)/libhakmem_nginx_testing.a
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $(filter-out %.so,$^) $(NGINX_LINK_$(@F)) -lcriterion -lm -ldl

# Objects whose slots are written; what each has that others have not.
NGINX_OBJECTS := $(BUILD)/tests/nginxunit/objects
NGINX_OBJECT_now := -Wl,-z,now,-z,relro
NGINX_OBJECT_lazy := -Wl,-z,lazy,-z,norelro
NGINX_OBJECT_data := -DWITH_DATA
NGINX_OBJECT_argz := -DWITH_ARGZ
NGINX_OBJECT_text := -DWITH_TEXT='"malloc"' -Wl,-z,notext
NGINX_OBJECT_textfree := -DWITH_TEXT='"free"' -Wl,-z,notext
NGINX_OBJECT_friend := -DWITH_FRIEND
NGINX_OBJECT_dl := -DWITH_DL
NGINX_OBJECT_runpath := -DWITH_DL -Wl,-rpath,'$$ORIGIN',--enable-new-dtags
NGINX_OBJECT_late := -DWITH_CONSTRUCTOR -Wl,-z,now,-z,relro
NGINX_OBJECT_callers := -DWITH_CALLERS
NGINX_OBJECT_allocator := -DWITH_ALLOCATOR
NGINX_OBJECT_own := -DWITH_OWN
NGINX_OBJECT_cxx := -DWITH_NEW -Wl,--no-as-needed -lstdc++
NGINX_OBJECT_COMPILE = $(CC) -std=gnu11 -D_GNU_SOURCE= -O1 -g -fPIC -fno-builtin \
    -Wall -Wextra $(if $(filter 1,$(WERROR)),-Werror) -shared
$(BUILD)/tests/nginxunit/slots $(BUILD)/tests/nginxunit/frees: $(patsubst %,$(NGINX_OBJECTS)/libngx%.so, \
    now lazy data argz text textfree friend dl runpath late callers allocator \
    own cxx)
$(BUILD)/tests/nginxunit/alloc: $(NGINX_OBJECTS)/libatfork.so
NGINX_LINK_alloc = -L$(NGINX_OBJECTS) -Wl,--no-as-needed,-latfork,--as-needed \
    -Wl,-rpath,'$$ORIGIN/objects'

$(NGINX_OBJECTS)/libngx%.so: tests/nginxunit/objects/object.c $(STAMP)
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(NGINX_OBJECT_COMPILE) -o $@ $< $(NGINX_OBJECT_$*)

$(NGINX_OBJECTS)/libatfork.so: tests/nginxunit/objects/atfork.c $(STAMP)
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(NGINX_OBJECT_COMPILE) -o $@ $<

include tests/wrap/programs.mk
include examples/build.mk

# ---- fuzzing ----------------------------------------------------------------

# The corpus as a test: the library as it is shipped, no libFuzzer.
REPLAY := $(BUILD)/tests/fuzz/replay
TESTS += $(REPLAY)
$(REPLAY): $(patsubst %,$(BUILD)/testing/tests/fuzz/%.o,replay ops model) \
    $(SUPPORT) $(BUILD)/libhakmem_core.a
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $^ -lcriterion -lm -ldl

# With VARIANT=fuzz or fuzzasan.
FUZZER := $(BUILD)/fuzz/ops
$(FUZZER): $(patsubst %,$(BUILD)/obj/tests/fuzz/%.o,ops model) \
    $(BUILD)/libhakmem_core.a
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -fsanitize=fuzzer -o $@ $^

# What is looked for are new paths in the core, and operations that lead there.
$(BUILD)/obj/tests/fuzz/model.o: FLAGS += \
    $(if $(filter fuzz%,$(VARIANT)),-fno-sanitize=fuzzer-no-link)

FUZZ_SECONDS ?= 600
FUZZ_CORPUS := tests/fuzz/corpus
FUZZ_OPTIONS := -timeout=60 -rss_limit_mb=2048 -detect_leaks=0 \
    -max_len=2048 -len_control=10 -print_final_stats=1

.PHONY: fuzz fuzz-run fuzz-corpus fuzz-merge
# In the asan build free memory goes back at once, not after a second.
fuzz: ## fuzz for FUZZ_SECONDS each: the release and the asan build (clang)
	@.ci/install-deps fuzz
	@$(MAKE) fuzz-run VARIANT=fuzz CC=clang BUILD=$(call BESIDE,fuzz)
	@HAKMEM_PURGE_DELAY=0 $(MAKE) fuzz-run VARIANT=fuzzasan CC=clang BUILD=$(call BESIDE,fuzzasan)

# New inputs go to the first directory, those that fail to $(BUILD)/fuzz.
fuzz-run: $(FUZZER)
	@mkdir -p $(BUILD)/fuzz/corpus
	$(FUZZER) $(FUZZ_OPTIONS) -max_total_time=$(FUZZ_SECONDS) \
	    -artifact_prefix=$(BUILD)/fuzz/ $(BUILD)/fuzz/corpus $(FUZZ_CORPUS)

# After `make fuzz`, with the same BUILD: the fewest inputs that lead everywhere.
# Inputs that once failed are called found-WHAT and stay.
fuzz-corpus: ## what `make fuzz` has found becomes the corpus that is replayed
	@$(MAKE) fuzz-merge VARIANT=fuzz CC=clang BUILD=$(call BESIDE,fuzz) \
	    FOUND='$(wildcard $(addsuffix /fuzz/corpus,$(foreach variant,\
	        fuzz fuzzasan,$(call BESIDE,$(variant)))))'

fuzz-merge: $(FUZZER)
	@rm -rf $(BUILD)/fuzz/merged && mkdir -p $(BUILD)/fuzz/merged
	$(FUZZER) -merge=1 -use_counters=0 $(BUILD)/fuzz/merged \
	    $(FUZZ_CORPUS) $(FOUND)
	@find $(FUZZ_CORPUS) -type f ! -name 'found-*' -delete
	@cp $(BUILD)/fuzz/merged/* $(FUZZ_CORPUS)

test: ## install what is missing, build, run every test
	@.ci/install-deps test python
	@.ci/install-deps nginx && nginx='$(MAKE) check-nginx' || \
	    { nginx=; echo 'test: without nginx, its tests are left out'; }; \
	tests/sum.sh '$(MAKE) check' \
	    '$(MAKE) check-python PYTHON=$(STOCK_PYTHON)' \
	    '$(MAKE) check-python-suite-quick PYTHON=$(STOCK_PYTHON)' \
	    $${nginx:+"$$nginx"}

check: lib lua $(TESTS) $(WRAP_PROGRAMS) $(NO_GIT) ## run the tests of VARIANT, installing nothing
	@$(PYTHON) tests/run.py --build $(BUILD) --variant $(VARIANT) $(TESTS)

# A BUILD given by hand gets a directory beside it for every variant.
BESIDE = $(if $(filter file,$(origin BUILD)),build/,$(BUILD)-)$1

check-asan check-ubsan check-tsan check-valgrind: check-%: ## the same in that variant
	@$(MAKE) check VARIANT=$* BUILD=$(call BESIDE,$*)

# ---- programs under LD_PRELOAD ----------------------------------------------

# Another library than ours: PRELOAD_LIB=FILE, to try a check or a peer; then the
# hardened build is left out. Some checks alone: PRELOAD_CHECKS='git node'.
PRELOAD_HARDENED := $(if $(filter 1,$(HARDENED))$(PRELOAD_LIB),,$(BUILD)-hardened)
PRELOAD_LIB ?= $(BUILD)/libhakmem.so
PRELOAD_CHECKS ?=
# Of the large checks 0, 1, 2 or all; by the day of the year if it is empty.
PRELOAD_THIRD ?=
PRELOAD_THREADS := $(BUILD)/tests/preload/threads
PRELOAD_RUN = $(PYTHON) tests/preload/run.py --build $(BUILD) \
    --library $(PRELOAD_LIB) \
    $(PRELOAD_HARDENED:%=--hardened %/libhakmem.so)

.PHONY: check-preload check-preload-large preload-libs
check-preload: ## Debian programs on libhakmem.so, outputs as without it
	@.ci/install-deps preload
	@$(MAKE) preload-libs $(PRELOAD_THREADS)
	@$(PRELOAD_RUN) $(PRELOAD_CHECKS)

check-preload-large: ## a third of the large ones, PRELOAD_THIRD=all for all (installs much)
	@.ci/install-deps test
	@$(MAKE) preload-libs
	@$(PRELOAD_RUN) --large $(PRELOAD_THIRD:%=--third %) $(PRELOAD_CHECKS)

# Ten programs in control groups (root), or under RLIMIT_DATA: four minutes.
# Some alone: LIMIT_PROGRAMS='redis nginx'; LIMIT_ARGS='--by data --slack 1.1'.
LIMIT_PARSER := $(BUILD)/tests/limits/parser
.PHONY: check-limit-programs
check-limit-programs: $(BUILD)/libhakmem.so $(LIMIT_PARSER) ## programs in a container as small as glibc's malloc can do with, and 5 %
	@.ci/install-deps preload
	@$(PYTHON) tests/limits/programs.py --library $(BUILD)/libhakmem.so \
	    --parser $(LIMIT_PARSER) $(LIMIT_ARGS) $(LIMIT_PROGRAMS)

$(LIMIT_PARSER): tests/limits/parser.cc $(STAMP)
	$(SAY) CXX $@
	@mkdir -p $(@D)
	$(Q)$(CXX) -std=c++17 -O2 -g -Wall -Wextra -Wpedantic \
	    $(if $(filter 1,$(WERROR)),-Werror) -o $@ $<

# The library, and the hardened one beside it.
preload-libs: $(filter $(BUILD)/%,$(PRELOAD_LIB))
	@$(if $(PRELOAD_HARDENED),$(MAKE) HARDENED=1 BUILD=$(PRELOAD_HARDENED) lib)

$(PRELOAD_THREADS): tests/preload/threads.cc $(STAMP)
	$(SAY) CXX $@
	@mkdir -p $(@D)
	$(Q)$(CXX) -std=c++17 -O2 -g -pthread -Wall -Wextra -Wpedantic \
	    $(if $(filter 1,$(WERROR)),-Werror) -o $@ $<

# ---- models -----------------------------------------------------------------

.PHONY: check-model
check-model: ## what lends a sleeping thread's heap, as a model (spin)
	@.ci/install-deps model
	@CC='$(CC)' tests/model/run.sh $(BUILD)

# ---- demo and benchmarks ----------------------------------------------------

demo: ## install what is missing, run Lua, Python and nginx with and without HAKMEM
	@.ci/install-deps demo python
	@$(MAKE) lib lua $(BENCH_LUA)
	@HAKMEM_BUILD=$(BUILD) $(PYTHON) bench/lua_report.py --quick
	@echo && $(MAKE) bench-python-run PYTHON=$(STOCK_PYTHON) BENCH_ARGS=--quick
	@echo; if why=$$(.ci/install-deps nginx 2>&1) && $(MAKE) nginx; then \
	    HAKMEM_NGINX_MODULE='$(abspath $(NGINX_MODULE))' \
	        $(PYTHON) bench/nginx_demo.py; \
	else echo "nginx: left out; $${why:-its module could not be built}" | \
	    tail -n 1; fi

# BENCH_ARGS goes to bench.py: BENCH_ARGS='--quick --rows pool'.
bench: ## malloc beside four other allocators: time, memory, faults, a picture
	@.ci/install-deps bench
	@$(MAKE) lib $(BENCHES) $(BENCH_MALLOC)
	@$(MAKE) HARDENED=1 BUILD=$(BUILD)-hardened lib
	@$(PYTHON) bench/bench.py --build $(BUILD) $(BENCH_ARGS)

bench-lua: ## Lua programs on HAKMEM, stock Lua and mimalloc, in full
	@.ci/install-deps bench
	@$(MAKE) lib lua $(BENCH_LUA)
	@HAKMEM_BUILD=$(BUILD) $(PYTHON) bench/lua_report.py

# BENCH_ARGS goes to python_report.py: '--insn', '--memory', '--rounds 9'.
bench-python: ## Python programs on HAKMEM, stock Python and other allocators
	@.ci/install-deps bench python
	@$(MAKE) bench-python-run PYTHON=$(STOCK_PYTHON)

bench-python-run: python
	@$(PYTHON) bench/python_report.py --hook $(PYTHON_DIR) \
	    --python $(PYTHON) --csv $(BUILD)/bench-python.csv $(BENCH_ARGS)

bench-insn: ## instructions per operation (callgrind), loop subtracted
	@.ci/install-deps bench
	@$(MAKE) $(BENCHES)
	@$(PYTHON) bench/insn.py --build $(BUILD)

# Workers of a server that forks: calls of malloc and free stay calls.
BENCH_FORK := $(BUILD)/bench/bench_fork
$(BUILD)/obj/bench/bench_fork.o: FLAGS += -fno-builtin-malloc -fno-builtin-free
$(BENCH_FORK): $(BUILD)/obj/bench/bench_fork.o
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $^ -ldl

.PHONY: bench-fork
bench-fork: ## memory of forked workers beside four other allocators
	@.ci/install-deps bench
	@$(MAKE) lib $(BENCH_FORK)
	@$(PYTHON) bench/fork.py --build $(BUILD)

BENCH_LIMITS := $(BUILD)/bench/bench_limits
$(BUILD)/obj/bench/bench_limits.o: FLAGS += -fno-builtin-malloc \
    -fno-builtin-free
$(BENCH_LIMITS): $(BUILD)/obj/bench/bench_limits.o
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $^ -ldl

# BENCH_ARGS goes to limits.py: other peers, Python.
.PHONY: bench-limits
bench-limits: ## what limits on address space and locked memory do
	@.ci/install-deps bench
	@$(MAKE) lib $(BENCH_LIMITS)
	@$(PYTHON) bench/limits.py --build $(BUILD) $(BENCH_ARGS)

BENCH_BACK := $(BUILD)/bench/bench_back
$(BUILD)/obj/bench/bench_back.o: FLAGS += -fno-builtin-malloc -fno-builtin-free
$(BENCH_BACK): $(BUILD)/obj/bench/bench_back.o
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $^ -ldl

# BENCH_ARGS goes to back.py: other peers, some of the sets.
.PHONY: bench-back bench-back-picture
bench-back: ## memory that was freed: what a sleeping process keeps, a picture
	@.ci/install-deps bench bench-back
	@$(MAKE) lib $(BENCH_BACK)
	@$(MAKE) HARDENED=1 BUILD=$(BUILD)-hardened lib
	@$(PYTHON) bench/back.py --build $(BUILD) $(BENCH_ARGS)

bench-back-picture: ## README's picture of it, docs/back.svg, made anew
	@$(MAKE) bench-back BENCH_ARGS='--sets curve $(BENCH_ARGS)'
	@cp $(BUILD)/bench/back.svg docs/back.svg

MIXED_hakmem := -DBENCH_HEADER='<hakmem.h>' -DBENCH_MALLOC=hak_malloc \
    -DBENCH_FREE=hak_free
MIXED_system := -DBENCH_HEADER='<stdlib.h>' -DBENCH_MALLOC=malloc \
    -DBENCH_FREE=free
MIXED_mimalloc := -DBENCH_HEADER='<mimalloc.h>' -DBENCH_MALLOC=mi_malloc \
    -DBENCH_FREE=mi_free
MIXED_jemalloc := $(MIXED_system)
MIXED_tcmalloc := -DBENCH_HEADER='<gperftools/tcmalloc.h>' \
    -DBENCH_MALLOC=tc_malloc -DBENCH_FREE=tc_free
MIXED_none :=

MIXED_LIBS_mimalloc := -lmimalloc
MIXED_LIBS_jemalloc := -Wl,--no-as-needed -ljemalloc
MIXED_LIBS_tcmalloc := -ltcmalloc_minimal

# -fno-plt: the peers are shared libraries; a call of theirs shall not pay
# for a detour that ours, linked statically, does not take.
$(BENCHES): $(BUILD)/bench/bench_random_mixed_%: bench/random_mixed.c \
    $(STAMP) $(BUILD)/libhakmem_core.a
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -fno-builtin -fno-plt $(MIXED_$*) -MF $@.d -MT $@ \
	    -DBENCH_NAME='"$*"' $< -o $@ $(LDFLAGS) $(BUILD)/libhakmem_core.a \
	    $(MIXED_LIBS_$*)

# Calls of malloc and free stay calls.
BENCH_MALLOC_OBJECTS := $(patsubst %.c,$(BUILD)/obj/%.o, \
    $(wildcard bench/bench_malloc*.c))
$(BENCH_MALLOC_OBJECTS): FLAGS += -fno-plt -fno-builtin-malloc \
    -fno-builtin-free -fno-builtin-calloc -fno-builtin-realloc
$(BENCH_MALLOC): $(BENCH_MALLOC_OBJECTS)
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $^ -ldl

# Not position independent: bench_lua fixes Lua's hash seed that way.
$(BENCH_LUA:$(BUILD)/bench/%=$(BUILD)/obj/bench/%.o): FLAGS += -fno-pic -fno-pie
$(BENCH_LUA): $(BUILD)/obj/bench/bench_lua.o $(BUILD)/libhakmem_lua.a
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -no-pie -o $@ $^ $(LUA_LIBS) -lm -ldl

# ---- man pages --------------------------------------------------------------

# Made of the headers' comments and the .def tables; docs/PAGE.in is the rest.
PAGES := $(patsubst docs/%.in,%,$(wildcard docs/*.in))

docs: $(PAGES:%=$(BUILD)/man/%) ## make the man pages: man -l build/release/man/hakmem.7
	@:

$(BUILD)/man/%: docs/%.in docs/make-man.py VERSION core/base/base.h core/settings/options.h \
    $(wildcard include/*.h include/*.def core/*/*.def adapters/*/*.def) \
    adapters/python/hakmem_py/__init__.py
	$(SAY) MAN $@
	@mkdir -p $(@D)
	$(Q)$(PYTHON) docs/make-man.py $* >$@

# ---- install ----------------------------------------------------------------

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
LUADIR ?= $(LIBDIR)/lua/5.4
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig

# The nginx module knows where the library will be: "hakmem_mode preload".
NGINX_LIBRARY := $(NGINX_DIR)/library
ifneq ($(file <$(NGINX_LIBRARY)),$(LIBDIR)/libhakmem.so)
$(NGINX_LIBRARY): force
endif
$(NGINX_LIBRARY):
	@mkdir -p $(@D)
	@echo '$(LIBDIR)/libhakmem.so' >$@
$(NGINX_MODULE): $(NGINX_LIBRARY)
$(NGINX_MODULE): export HAKMEM_NGINX_PRELOAD = $(LIBDIR)/libhakmem.so

HEADERS := hakmem.h hakmem_lua.h hakmem_ngx.h hakmem_stats.def
PACKAGES := hakmem hakmem_core hakmem_lua
LIBS := libhakmem.a libhakmem_malloc.a hakmem_malloc.o libhakmem_core.a \
    libhakmem_lua.a

# Lua 5.4 has a name of its own on every system; with none of them found the
# package leaves it to the host.
LUA_PACKAGE ?= $(shell for name in lua5.4 lua-5.4 lua54 lua; do \
    pkg-config --exists "$$name >= 5.4" "$$name < 5.5" 2>/dev/null && \
    echo $$name && break; done)

# A page for each function, which leads to the page that has it.
LINKS = $(shell $(PYTHON) docs/make-man.py --links | sed 's/ .*//')
INSTALLED = $(HEADERS:%=$(INCLUDEDIR)/%) $(LIBS:%=$(LIBDIR)/%) \
    $(foreach lib,$(SHARED),$(LIBDIR)/$(lib) $(LIBDIR)/$(lib).$(VERSION_MAJOR) \
        $(LIBDIR)/$(lib).$(VERSION)) \
    $(LUADIR)/hakmem.so $(PACKAGES:%=$(PKGCONFIGDIR)/%.pc) \
    $(foreach page,$(PAGES) $(LINKS),$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(page))

install: lib lua docs $(SHARED:%=$(BUILD)/%) ## install below PREFIX (DESTDIR before it)
	$(SAY) INST '$(DESTDIR)$(PREFIX)'
	$(Q)for dir in $(sort $(dir $(INSTALLED))); do \
	    install -d '$(DESTDIR)'"$$dir" || exit 1; done
	$(Q)install -m 644 $(HEADERS:%=include/%) '$(DESTDIR)$(INCLUDEDIR)'
	$(Q)install -m 644 $(LIBS:%=$(BUILD)/%) '$(DESTDIR)$(LIBDIR)'
	$(Q)set -e; cd '$(DESTDIR)$(LIBDIR)'; for lib in $(SHARED); do \
	    install -m 755 '$(abspath $(BUILD))'/"$$lib" "$$lib.$(VERSION)"; \
	    ln -sf "$$lib.$(VERSION)" "$$lib.$(VERSION_MAJOR)"; \
	    ln -sf "$$lib.$(VERSION_MAJOR)" "$$lib"; done
	$(Q)install -m 755 $(BUILD)/lua/hakmem.so '$(DESTDIR)$(LUADIR)'
	$(Q)set -e; for name in $(PACKAGES); do sed -e 1d -e 's,@PREFIX@,$(PREFIX),' \
	    -e 's,@LIBDIR@,$(LIBDIR),' -e 's,@INCLUDEDIR@,$(INCLUDEDIR),' \
	    -e 's,@VERSION@,$(VERSION),' $(if $(LUA_PACKAGE),-e \
	    's|@LUA@|$(LUA_PACKAGE)|',-e /@LUA@/d) "$$name.pc.in" \
	    >'$(DESTDIR)$(PKGCONFIGDIR)'/"$$name.pc"; done
	$(Q)for page in $(PAGES); do install -m 644 $(BUILD)/man/$$page \
	    '$(DESTDIR)$(MANDIR)'/man$${page##*.} || exit 1; done
	$(Q)$(PYTHON) docs/make-man.py --links | while read -r name page; do \
	    echo ".so man3/$$page" >'$(DESTDIR)$(MANDIR)/man3/'$$name || exit 1; done

uninstall: ## remove what install put there, with the same variables
	$(SAY) RM '$(DESTDIR)$(PREFIX)'
	$(Q)rm -f $(INSTALLED:%='$(DESTDIR)'%)

check-install: lib lua docs $(SHARED:%=$(BUILD)/%) ## test install and uninstall in a directory of their own
	@MAKE='$(MAKE)' BUILD='$(BUILD)' CC='$(CC)' LUA_LIBS='$(LUA_LIBS)' \
	    LIBS='$(LIBS)' SHARED='$(SHARED)' tests/install.sh

# ---- upkeep -----------------------------------------------------------------

LINTS := layers size symbols format words shell docs

lint: lint-deps ## all lints; lint-NAME for one of them
	@$(MAKE) -k $(LINTS:%=lint-%)

lint-deps:
	@.ci/install-deps lint

$(LINTS:%=lint-%): lint-%: lint-deps
	@.ci/lint-$* && echo "lint-$*: ok"

lint-symbols: lib lua
lint-symbols: export BUILD_DIR = $(BUILD)
lint-format format: export CLANG_FORMAT := $(CLANG_FORMAT)

format: ## rewrite the C files in the project's style
	@.ci/install-deps lint
	@.ci/lint-format --apply

install-deps: ## install every package any target needs
	@.ci/install-deps demo test fuzz bench lint ci preload python nginx \
	    nginx-bench

clean: ## remove what was built
	rm -rf $(if $(filter file,$(origin BUILD)),build,$(BUILD))

help: ## list the targets
	@echo "make [TARGET] [VARIANT=$(subst $() ,|,$(VARIANTS))]" \
	    "[CC=gcc|clang] [WERROR=1] [V=1]"
	@sed -n 's/^\([a-z][a-z -]*\):.*## \(.*\)/\1|\2/p' Makefile | \
	    while IFS='|' read -r names text; do \
	        for name in $$names; do \
	            printf '  %-25s %s\n' "$$name" "$$text"; \
	        done; \
	    done

.PHONY: all lib lua test check check-asan check-ubsan check-tsan \
    check-valgrind demo bench bench-lua bench-insn docs install uninstall \
    check-install lint lint-deps $(LINTS:%=lint-%) format install-deps clean help force

ifneq ($(wildcard $(BUILD)),)
-include $(shell find $(BUILD) -name nginx-static -prune -o -name '*.d' -print)
endif
