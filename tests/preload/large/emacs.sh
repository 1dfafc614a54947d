#!/bin/bash
# emacs - Emacs in batch mode: compiles Lisp to bytes, edits and sorts a buffer,
# JSON, processes, tests by its own ert.
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$ROOT/tests/preload/lib.sh"

cat >program.el <<'CODE'
;;; program.el --- a test  -*- lexical-binding: t -*-
(require 'cl-lib)
(require 'ert)
(require 'json)
(require 'subr-x)
(setq debug-on-error t)
(defun program-words (n)
  (let ((seed 42) words)
    (dotimes (_ n words)
      (setq seed (mod (+ (* seed 1103515245) 12345) 2147483648))
      (push (format "%c%x" (+ 97 (mod (/ seed 65536) 26)) (/ seed 256)) words))))
(ert-deftest program-buffer ()
  (with-temp-buffer
    (dolist (word (program-words 20000)) (insert word "\n"))
    (sort-lines nil (point-min) (point-max))
    (goto-char (point-min))
    (while (re-search-forward "\\([a-f]\\)\\([0-9]\\)" nil t)
      (replace-match "\\2\\1"))
    (buffer-enable-undo)
    (princ (format "%d %s\n" (buffer-size) (secure-hash 'sha256 (current-buffer))))
    (let ((before (buffer-string)))
      (goto-char (point-min))
      (kill-line 500)
      (primitive-undo 1 buffer-undo-list)
      (should (equal before (buffer-string))))))
(ert-deftest program-hash ()
  (let ((table (make-hash-table :test 'equal)))
    (dolist (word (program-words 50000))
      (puthash (substring word 0 3) (1+ (gethash (substring word 0 3) table 0)) table))
    (princ (format "%d\n" (hash-table-count table)))
    (let* ((json (json-serialize (vconcat (sort (hash-table-keys table) #'string<)))))
      (princ (format "%s\n" (secure-hash 'sha256 json)))
      (should (equal (length (json-parse-string json)) (hash-table-count table))))))
(ert-deftest program-numbers ()
  (let ((f 1)) (cl-loop for i from 1 to 1000 do (setq f (* f i)))
       (princ (format "%s\n" (secure-hash 'sha256 (number-to-string f))))))
(ert-deftest program-modes ()
  (dolist (mode '(c-mode emacs-lisp-mode python-mode sh-mode))
    (with-temp-buffer
      (dotimes (i 100) (insert (format "int f%d(void)\n{\nif (x)\nreturn \"%d\";\n}\n" i i)))
      (funcall mode)
      (when (eq mode 'c-mode) (indent-region (point-min) (point-max)))
      (font-lock-ensure)
      (princ (format "%s %d\n" mode (buffer-size))))))
(ert-deftest program-processes ()
  (dotimes (i 10)
    (with-temp-buffer
      (call-process "seq" nil (list t nil) nil (number-to-string (* 1000 (1+ i))))
      (princ (format "%d " (count-lines (point-min) (point-max))))))
  (let ((threads (mapcar (lambda (n) (make-thread (lambda () (apply #'+ (number-sequence 1 (* n 1000))))))
                         (number-sequence 1 6))))
    (princ (format "%S\n" (mapcar #'thread-join threads))))
  (dotimes (_ 5) (garbage-collect)))
;;; program.el ends here
CODE
AS=compile under emacs -Q --batch -f batch-byte-compile program.el
sha256sum program.elc
for file in program.el program.elc; do
    AS="run-${file##*.}" under emacs -Q --batch -l "./$file" \
        -f ert-run-tests-batch-and-exit
done
grep -h -e '^Ran 5 tests, 5 results as expected' "$REPORTS"/run-el* |
    sed 's/ (.*//'
