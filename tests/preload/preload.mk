# Debian's programs under LD_PRELOAD.

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
check-preload: ## test: Debian programs on libhakmem.so, outputs as without it
	@.ci/install-deps preload
	@$(MAKE) preload-libs $(PRELOAD_THREADS)
	@$(PRELOAD_RUN) $(PRELOAD_CHECKS)

check-preload-large: ## test: a third of the large ones, PRELOAD_THIRD=all for all (installs much)
	@.ci/install-deps test
	@$(MAKE) preload-libs
	@$(PRELOAD_RUN) --large $(PRELOAD_THIRD:%=--third %) $(PRELOAD_CHECKS)

# The library, and the hardened one beside it.
preload-libs: $(filter $(BUILD)/%,$(PRELOAD_LIB))
	@$(if $(PRELOAD_HARDENED),$(MAKE) HARDENED=1 BUILD=$(PRELOAD_HARDENED) lib)

$(PRELOAD_THREADS): tests/preload/threads.cc $(STAMP)
	$(SAY) CXX $@
	@mkdir -p $(@D)
	$(Q)$(CXX) -std=c++17 -O2 -g -pthread -Wall -Wextra -Wpedantic \
	    $(if $(filter 1,$(WERROR)),-Werror) -o $@ $<
