#!/usr/bin/env bash
# g++ 12 makes one instruction, vminps, of `a < b ? a : b` for vectors of floats, as it makes vminss of it for scalars, but
# where b is a constant it makes a comparison and a blend of the same expression, for AVX-512 and AVX2 alike: polynomials
# with a bounded argument, such as a snake's sine, pay for it with every vector. The scalar form with the same constant is
# one instruction. Exits with 0 while that is so, with 1 when it has changed. Wants g++ for x86-64.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/least.cpp" <<'CODE'
typedef float Vec __attribute__((vector_size(WIDTH * 4)));
float scalar(float a) { return a < 2.5f ? a : 2.5f; }
void constant(Vec* a) { *a = *a < 2.5f ? *a : Vec{} + 2.5f; }
void variable(Vec* a, const Vec* b) { *a = *a < *b ? *a : *b; }
CODE
g++ --version | head -1
changed=0
for target in "16 -mavx512f -mavx512dq -mavx512vl" "8 -mavx2"; do
  read -r width flags <<< "$target"
  # shellcheck disable=SC2086
  g++ -O2 -DWIDTH="$width" $flags -S -o "$folder/least.s" "$folder/least.cpp"
  made=$(awk '/^_Z[0-9]+(scalar|constant|variable)/ {name = $1; sub(/^_Z[0-9]+/, "", name); sub(/(f|P).*/, "", name)}
    /\tv(min|cmp|blend)/ {print name, $1}' "$folder/least.s" | sort | uniq -c | awk '{print $2, $3}')
  printf '%s floats:\n%s\n' "$width" "$made"
  grep -q '^scalar vminss' <<< "$made" || changed=1
  grep -q '^constant vcmp' <<< "$made" || changed=1
  if grep -q '^constant vminps' <<< "$made"; then changed=1; fi
done
exit "$changed"
