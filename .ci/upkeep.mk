# Lints, the release archive, packages.

LINTS := layers size symbols format words shell docs tests

.PHONY: lint lint-deps $(LINTS:%=lint-%) format dist install-deps

lint: lint-deps ## upkeep: all lints; lint-NAME for one of them
	@$(MAKE) -k $(LINTS:%=lint-%)

lint-deps:
	@.ci/install-deps lint

.PHONY: lint-hot
lint-hot: lib
	@.ci/lint-hot && echo "lint-hot: ok"

$(LINTS:%=lint-%): lint-%: lint-deps
	@.ci/lint-$* && echo "lint-$*: ok"

lint-symbols: all
lint-symbols lint-hot: export BUILD_DIR = $(BUILD)
lint-hot: export OBJDUMP = $(if $(CROSS),$(CROSS)-)objdump
lint-format format: export CLANG_FORMAT := $(CLANG_FORMAT)

format: ## upkeep: rewrite the C files in the project's style
	@.ci/install-deps lint
	@.ci/lint-format --apply

dist: ## upkeep: the release archive, into $(BUILD)
	@.ci/dist $(BUILD)/hakmem-$(VERSION).tar.xz

install-deps: ## upkeep: install every package any target needs
	@.ci/install-deps $(sort $(DEPS) $(DEPS_test) $(DEPS_demo))
