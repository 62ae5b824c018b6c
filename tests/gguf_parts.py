"""A GGUF file in several parts, as llama.cpp's own tool splits one."""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFReader, GGUFWriter


def split_gguf(source: Path, folder: Path, count: int, stem: str = "model") -> list[Path]:
    """The parts in their order. Only the first has the metadata; tensors are dealt out in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(source)
    paths = []
    for number in range(count):
        path = folder / f"{stem}-{number + 1:05d}-of-{count:05d}.gguf"
        writer = GGUFWriter(path, "llama")
        if number:
            # Later parts have no architecture of their own.
            writer.kv_data[0].clear()
        else:
            for key, field in reader.fields.items():
                if not key.startswith("GGUF.") and key != "general.architecture":
                    kinds = field.types
                    writer.add_key_value(
                        key, field.contents(), kinds[0], kinds[-1] if len(kinds) > 1 else None
                    )
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in reader.tensors[number::count]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(path)
    return paths
