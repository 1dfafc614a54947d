# Other processors, under qemu's emulation of user programs, and musl. Their tests are
# those of TESTS, with TEST_LIBRARY=plain.

ifneq ($(CROSS),)
# What reads the machine's files, or runs other programs of this processor.
TESTS := $(filter-out $(addprefix $(BUILD)/tests/,unit/os/cgroup unit/range/container \
    wrap/% nginxunit/%),$(TESTS))
TEST_NEEDS := $(PLUGGED)
# Minutes each when emulated.
SLOW_TESTS := $(addprefix $(BUILD)/tests/,unit/together/fault% unit/together/fork_mend \
    unit/range/pressure $(addprefix lua/,contract each fault figures guards limit module \
    on_limit oom profile profile_module programs scripts state switch threads))
ifeq ($(SLOW),)
TESTS := $(filter-out $(SLOW_TESTS),$(TESTS))
endif
endif

.PHONY: check-aarch64 check-riscv64
check-aarch64 check-riscv64: check-%: ## test: for that processor, emulated (qemu); SLOW=1: all of it
	@.ci/install-deps $*
	@$(MAKE) lua-source
	@$(MAKE) CROSS=$*-linux-gnu VARIANT=release SLOW='$(SLOW)' lint-hot check

.PHONY: check-musl check-musl-run
check-musl: ## test: programs on each library built with musl-gcc, a Lua state
	@.ci/install-deps musl
	@$(MAKE) lua-source || echo "make: Lua's sources can't be had: its checks are left out"
	@$(MAKE) MUSL=1 VARIANT=release check-musl-run
check-musl-run: lib lua $(if $(LUA_BUILT),$(BUILD)/stock/liblua.so $(BUILD)/stock/liblua.a)
	@tests/musl/run.sh $(BUILD) '$(LUA_CFLAGS)' '$(LUA_LIBS)'

ifneq ($(filter musl%,$(CC)),)
TESTS := $(filter-out $(BUILD)/tests/nginxunit/% $(BUILD)/tests/wrap/%,$(TESTS))
TEST_NEEDS := $(PLUGGED)
endif
