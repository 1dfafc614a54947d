# Packages: Debian's (debian/), LuaRocks' (the rockspec), wheels (adapters/python),
# the list of what is in them. What only these goals need is not in install-deps:
# each says in one line what is missing.

DEB_DIR := $(BUILD)/deb
ARCHIVE := $(BUILD)/hakmem-$(VERSION).tar.xz
SBOM := $(BUILD)/hakmem-$(VERSION).spdx.json

.PHONY: deb check-deb sbom check-luarocks check-reproducible

deb: dist ## use: Debian's packages of the release archive, into $(BUILD)/deb
	@packaging/deb.sh $(ARCHIVE) $(DEB_DIR)

# Minutes, root, a network for the first time: not in `make test`.
check-deb: deb ## test: those packages installed, used, upgraded and purged in a chroot (root)
	@tests/packages/deb.sh $(DEB_DIR) $(BUILD)/deb-chroot.tar

check-reproducible: ## test: archive, packages, wheel and SBOM built twice are the same bytes (slow)
	@MAKE='$(MAKE)' tests/packages/reproducible.sh $(PYTHON)

check-luarocks: ## test: the module by `luarocks make`, in a tree of its own
	@tests/packages/luarocks.sh

sbom: all $(if $(wildcard $(NGINX_MODULE)),nginx) ## use: what is in the build and linked to it (SPDX 2.3), into $(BUILD)
	$(SAY) SBOM $(SBOM)
	$(Q)$(PYTHON) packaging/sbom.py $(BUILD) $(SBOM)
