# The tests: of the core (tests/unit, white box), of libhakmem.so (tests/wrap),
# of what is installed. Those of an adapter are in its build.mk.

DEPS += test fuzz preload musl cmake

# clang's -Wpedantic finds fault with Criterion's assertions.
$(BUILD)/testing/tests/%.o $(BUILD)/testing/adapters/%.o: FLAGS += \
    -Itests -Itests/unit -Itests/support $(if $(TEST_PLAIN),-Itests/support/plain) \
    $(if $(findstring clang,$(CC)),-Wno-gnu-zero-variadic-macro-arguments)

# A program per file; tests/support is linked into all of them.
# Sanitizers and valgrind have SIGSEGV for themselves, or report what a guard is for.
UNIT_TESTS := $(patsubst %.c,$(BUILD)/%,$(filter-out \
    $(if $(filter 1,$(HARDENED)),,tests/unit/guard/%.c) \
    $(if $(filter asan tsan valgrind,$(VARIANT)),tests/unit/profile/fault.c), \
    $(sort $(wildcard tests/unit/*.c tests/unit/*/*.c))))
TESTS += $(UNIT_TESTS)
$(eval $(call criterion,$(UNIT_TESTS),$(BUILD)/libhakmem_testing.a))

# To be closed, and to lie where the other one lay.
PLUGGED := $(addprefix $(BUILD)/tests/unit/profile/plugged,40.so 88.so)
$(PLUGGED): $(BUILD)/tests/unit/profile/plugged%.so: tests/support/plugged/plugged.c $(STAMP)
	$(SAY) CC $@
	@mkdir -p $(@D)
	$(Q)$(CC) -shared -fPIC -O1 -fno-stack-protector -DFRAME=$* -Wall -Wextra \
	    -o $@ $<
TEST_NEEDS += $(PLUGGED)

# To preload: a kernel with other pages, as far as system calls go. What counts
# pages of 4 KB is not among the programs that are run so.
PAGES_TESTS := $(addprefix $(BUILD)/tests/,$(addprefix unit/, \
    together/stress together/stress_lanes together/fault_lanes together/pairs \
    together/meet together/meet_locks tiny/remote tiny/tiny tiny/tiny_back \
    api/sized api/seal_fork api/seal_threads range/superslabs range/slabs \
    heap/lend heap/resident upkeep/background profile/written \
    profile/guarded profile/fault) \
    fuzz/replay $(if $(HAVE_LUA),lua/scripts lua/limit lua/programs lua/threads lua/on_limit))
.PHONY: check-pages
check-pages: build-tests ## test: on kernels with pages of 16 and 64 KB
	@for kb in 16 64; do echo "pages of $$kb KB"; TEST_PAGE_KB=$$kb \
	    LD_PRELOAD=$(abspath $(OTHER_PAGES)) $(PYTHON) tests/run.py --build $(BUILD) \
	    --variant $(VARIANT) --again $(or $(HAKMEM_TEST_AGAIN),0) $(PAGES_TESTS) || exit 1; done

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
TEST_NEEDS += $(NO_GIT)

include tests/wrap/programs.mk tests/fuzz/fuzz.mk tests/preload/preload.mk \
    tests/stress/stress.mk

# Ten programs in control groups (root), or under RLIMIT_DATA: four minutes.
# Some alone: LIMIT_PROGRAMS='redis nginx'; LIMIT_ARGS='--by data --slack 1.1'.
LIMIT_PARSER := $(BUILD)/tests/limits/parser
.PHONY: check-limit-programs
check-limit-programs: $(BUILD)/libhakmem.so $(LIMIT_PARSER) ## test: programs in a container as small as glibc's malloc can do with, and 5 %
	@.ci/install-deps preload
	@$(PYTHON) tests/limits/programs.py --library $(BUILD)/libhakmem.so \
	    --parser $(LIMIT_PARSER) $(LIMIT_ARGS) $(LIMIT_PROGRAMS)

$(LIMIT_PARSER): tests/limits/parser.cc $(STAMP)
	$(SAY) CXX $@
	@mkdir -p $(@D)
	$(Q)$(CXX) -std=c++17 -O2 -g -Wall -Wextra -Wpedantic \
	    $(if $(filter 1,$(WERROR)),-Werror) -o $@ $<

.PHONY: check-model
check-model: ## test: who works on a sleeping thread's heap, who has a lock, as models (spin)
	@.ci/install-deps model
	@CC='$(CC)' tests/model/run.sh $(BUILD)

.PHONY: check-onefile
check-onefile: ## test: hakmem.c, the core as one file, with gcc and clang
	@tests/onefile/run.sh

.PHONY: check-install
check-install: $(ALL) docs-if ## test: install and uninstall, in a directory of their own; the makefiles; the lints; tables of versions
	@MAKE='$(MAKE)' BUILD='$(BUILD)' CC='$(CC)' LUA_LIBS='$(LUA_LIBS)' \
	    LIBS='$(LIBS)' SHARED='$(SHARED)' \
	    tests/sum.sh tests/install.sh tests/build.sh tests/lints.sh tests/where.sh

.PHONY: check-dist
check-dist: ## test: the release archive builds by itself; projects use it by CMake
	@.ci/install-deps cmake
	@$(MAKE) dist
	@MAKE='$(MAKE)' CC='$(CC)' ARCHIVE='$(BUILD)/hakmem-$(VERSION).tar.xz' \
	    tests/cmake/run.sh

# DEBIANS="bullseye trixie", COMPILERS=gcc, TESTS="unit/tiny/tiny": some alone.
.PHONY: check-debians
check-debians: ## test: core and Lua built and tested in Debian 11, 12 and 13, gcc and clang (root, slow)
	@.ci/install-deps chroot
	@COMPILERS='$(COMPILERS)' TESTS='$(if $(filter command line,$(origin TESTS)),$(TESTS))' \
	    tests/debians.sh $(call BESIDE,debians) $(DEBIANS)

# EVERYWHERE="nginx debians": some rows alone. NGINX_SRC: source trees for check-nginxes.
.PHONY: check-everywhere
check-everywhere: ## test: every machine and version that can be tried here, as one table (hours)
	@MAKE='$(MAKE)' NGINX_SRC='$(filter-out /usr/share/nginx/src,$(NGINX_SRC))' \
	    $(PYTHON) tests/everywhere.py $(EVERYWHERE)
