#include "patch_embed/patch_embed.hpp"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace pyseq {

namespace {

// Asks for pages of 2 MiB: new ones of 4 KiB take longer to get than a result takes to write.
void ask_for_large_pages(const Tensor& out) {
#ifdef __linux__
  constexpr int64_t kRecycled = int64_t{32} << 20;  // malloc gives larger blocks back when freed
  constexpr int64_t kPage = int64_t{2} << 20;
  const int64_t bytes = out.shape[0] * out.shape[1] * out.shape[2] * size_of(out.dtype);
  if (bytes <= kRecycled) return;
  const auto start = reinterpret_cast<int64_t>(out.data);
  const int64_t first = (start + kPage - 1) / kPage * kPage;
  const int64_t end = (start + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(first), static_cast<size_t>(end - first), MADV_HUGEPAGE);
#else
  (void)out;
#endif
}

}  // namespace

void patch_embed(const PatchEmbed& arguments) {
  ask_for_large_pages(arguments.out);
  PYSEQ_CALL(patch_embed, arguments)
}

void patch_embed_backward(const PatchEmbedBackward& arguments) {
  PYSEQ_CALL(patch_embed_backward, arguments)
}

}  // namespace pyseq
