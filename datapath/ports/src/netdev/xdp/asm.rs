//! How is a program of eBPF written down (RFC 9669)? Instructions with jumps to labels that lie behind them.

/// One instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Insn {
    pub(super) code: u8,
    to: Reg,
    from: Reg,
    pub(super) offset: i16,
    imm: i32,
}

/// A register. R0 is what the program and its calls return, R1 to R5 are what they are given, and do not survive a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
}

/// How many bytes a load takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Size {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
}

/// When a jump is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum If {
    Equal = 0x10,
    Greater = 0x20,
    AnyBit = 0x40,
    NotEqual = 0x50,
}

/// Arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Op {
    Add = 0x00,
    And = 0x50,
    ShiftLeft = 0x60,
    Set = 0xb0,
}

const LDX: u8 = 0x01;
const ALU: u8 = 0x04;
const JMP: u8 = 0x05;
const ALU64: u8 = 0x07;
/// The operand is a register.
const REGISTER: u8 = 0x08;
const MEM: u8 = 0x60;
const BIG_ENDIAN: u8 = 0xd8;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;
/// A load of 64 bits that are in the program itself, as two instructions.
const LOAD_CONSTANT: u8 = 0x18;
/// Its value is the descriptor of a map.
const PSEUDO_MAP_FD: Reg = Reg::R1;

/// A place in the program that is jumped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// A program in the making.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    insns: Vec<Insn>,
    /// The instruction behind each label, once it is known.
    labels: Vec<Option<usize>>,
    /// Jumps, and where they lead.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// A label that is still to be placed.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places `label` here.
    pub(super) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.insns.len());
    }

    /// `to` becomes the number of `size` at `from + offset`, as the processor reads it.
    pub(super) fn load(&mut self, size: Size, to: Reg, from: Reg, offset: i16) {
        self.push(Insn { code: LDX | MEM | size as u8, to, from, offset, imm: 0 });
    }

    /// `to` becomes the number of two bytes at `from + offset`, as the network writes it.
    pub(super) fn load_network(&mut self, to: Reg, from: Reg, offset: i16) {
        self.load(Size::Half, to, from, offset);
        self.push(Insn { code: ALU | BIG_ENDIAN, to, from: Reg::R0, offset: 0, imm: 16 });
    }

    /// `to` becomes the descriptor of a map.
    pub(super) fn load_map(&mut self, to: Reg, fd: i32) {
        self.push(Insn { code: LOAD_CONSTANT, to, from: PSEUDO_MAP_FD, offset: 0, imm: fd });
        self.push(Insn { code: 0, to: Reg::R0, from: Reg::R0, offset: 0, imm: 0 });
    }

    /// `to = to op value`.
    pub(super) fn with(&mut self, op: Op, to: Reg, value: i32) {
        self.push(Insn { code: ALU64 | op as u8, to, from: Reg::R0, offset: 0, imm: value });
    }

    /// `to = to op from`.
    pub(super) fn with_reg(&mut self, op: Op, to: Reg, from: Reg) {
        self.push(Insn { code: ALU64 | REGISTER | op as u8, to, from, offset: 0, imm: 0 });
    }

    /// Goes to `label` if `reg` and `value` are as `condition` says.
    pub(super) fn jump(&mut self, condition: If, reg: Reg, value: i32, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.push(Insn { code: JMP | condition as u8, to: reg, from: Reg::R0, offset: 0, imm: value });
    }

    /// Goes to `label` if `a` and `b` are as `condition` says.
    pub(super) fn jump_reg(&mut self, condition: If, a: Reg, b: Reg, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.push(Insn { code: JMP | REGISTER | condition as u8, to: a, from: b, offset: 0, imm: 0 });
    }

    /// Goes to `label`.
    pub(super) fn go(&mut self, label: Label) {
        self.jumps.push((self.insns.len(), label));
        self.push(Insn { code: JMP, to: Reg::R0, from: Reg::R0, offset: 0, imm: 0 });
    }

    /// Calls the kernel's function of this number.
    pub(super) fn call(&mut self, function: i32) {
        self.push(Insn { code: JMP | CALL, to: Reg::R0, from: Reg::R0, offset: 0, imm: function });
    }

    /// Ends the program.
    pub(super) fn exit(&mut self) {
        self.push(Insn { code: JMP | EXIT, to: Reg::R0, from: Reg::R0, offset: 0, imm: 0 });
    }

    fn push(&mut self, insn: Insn) {
        self.insns.push(insn);
    }

    /// The program.
    ///
    /// # Panics
    /// If a label was never placed, or lies too far away.
    pub(super) fn finish(mut self) -> Vec<Insn> {
        for (at, label) in self.jumps {
            let target = self.labels[label.0].expect("every label is placed");
            let distance = target as i64 - at as i64 - 1;
            self.insns[at].offset = i16::try_from(distance).expect("programs are short");
        }
        self.insns
    }
}

/// The program as the kernel wants it.
pub(super) fn bytes(program: &[Insn]) -> Vec<u8> {
    program.iter().flat_map(|insn| insn.bytes()).collect()
}

impl Insn {
    /// `struct bpf_insn`: code, two registers of four bits, offset, constant.
    fn bytes(&self) -> [u8; 8] {
        let (to, from) = (self.to as u8, self.from as u8);
        let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        let mut bytes = [self.code, registers, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&self.offset.to_ne_bytes());
        bytes[4..8].copy_from_slice(&self.imm.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_written_as_the_standard_says() {
        let mut program = Assembler::default();
        let end = program.label();
        program.load(Size::Word, Reg::R2, Reg::R1, 4);
        program.load_network(Reg::R5, Reg::R2, 12);
        program.jump(If::NotEqual, Reg::R5, 0x0800, end);
        program.with_reg(Op::Set, Reg::R4, Reg::R2);
        program.jump_reg(If::Greater, Reg::R4, Reg::R3, end);
        program.load_map(Reg::R1, 7);
        program.call(51);
        program.place(end);
        program.with(Op::Set, Reg::R0, 2);
        program.exit();
        let expected: [[u8; 8]; 11] = [
            [0x61, 0x12, 4, 0, 0, 0, 0, 0],
            [0x69, 0x25, 12, 0, 0, 0, 0, 0],
            [0xdc, 0x05, 0, 0, 16, 0, 0, 0],
            [0x55, 0x05, 5, 0, 0, 8, 0, 0],
            [0xbf, 0x24, 0, 0, 0, 0, 0, 0],
            [0x2d, 0x34, 3, 0, 0, 0, 0, 0],
            [0x18, 0x11, 0, 0, 7, 0, 0, 0],
            [0; 8],
            [0x85, 0x00, 0, 0, 51, 0, 0, 0],
            [0xb7, 0x00, 0, 0, 2, 0, 0, 0],
            [0x95, 0x00, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(bytes(&program.finish()), expected.concat());
    }
}
