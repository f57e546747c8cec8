<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="zh_CN" sourcelanguage="en">
  <context>
    <name>About</name>
    <message>
      <source>About KVScope</source>
      <translation>关于 KVScope</translation>
    </message>
    <message>
      <source>Inspector for the KV-cache scales of LLM checkpoints: will the engine's attention layers really receive them, and if not, why, and how is it fixed? Free software under the Apache License 2.0.</source>
      <translation>大语言模型检查点的 KV 缓存缩放因子检查器：引擎的注意力层真的会收到它们吗？如果不会，为什么，又该如何修复？按 Apache 2.0 许可证发布的自由软件。</translation>
    </message>
    <message>
      <source>Copy for a report</source>
      <translation>复制以便报告问题</translation>
    </message>
    <message>
      <source>Versions</source>
      <translation>版本</translation>
    </message>
  </context>
  <context>
    <name>Actions</name>
    <message>
      <source>&amp;File</source>
      <translation>文件(&amp;F)</translation>
    </message>
    <message>
      <source>&amp;Edit</source>
      <translation>编辑(&amp;E)</translation>
    </message>
    <message>
      <source>&amp;View</source>
      <translation>视图(&amp;V)</translation>
    </message>
    <message>
      <source>&amp;Checkpoint</source>
      <translation>检查点(&amp;C)</translation>
    </message>
    <message>
      <source>E&amp;ngine</source>
      <translation>引擎(&amp;N)</translation>
    </message>
    <message>
      <source>&amp;Tools</source>
      <translation>工具(&amp;T)</translation>
    </message>
    <message>
      <source>&amp;Help</source>
      <translation>帮助(&amp;H)</translation>
    </message>
    <message>
      <source>Open &amp;Recent</source>
      <translation>打开最近的检查点(&amp;R)</translation>
    </message>
    <message>
      <source>Open &amp;Sample</source>
      <translation>打开示例(&amp;S)</translation>
    </message>
    <message>
      <source>&amp;Theme</source>
      <translation>主题(&amp;T)</translation>
    </message>
    <message>
      <source>&amp;Engine</source>
      <translation>引擎(&amp;E)</translation>
    </message>
    <message>
      <source>&amp;Backend</source>
      <translation>后端(&amp;B)</translation>
    </message>
    <message>
      <source>&amp;Open File…</source>
      <translation>打开文件(&amp;O)…</translation>
    </message>
    <message>
      <source>Open a safetensors or PyTorch file</source>
      <translation>打开 safetensors 或 PyTorch 文件</translation>
    </message>
    <message>
      <source>Open &amp;Folder…</source>
      <translation>打开文件夹(&amp;F)…</translation>
    </message>
    <message>
      <source>Open a checkpoint folder with all its shards</source>
      <translation>打开包含全部分片的检查点文件夹</translation>
    </message>
    <message>
      <source>Open &amp;Address…</source>
      <translation>打开地址(&amp;A)…</translation>
    </message>
    <message>
      <source>Open a checkpoint from a hub, web server or bucket; only headers are fetched</source>
      <translation>打开模型库、网页服务器或存储桶中的检查点；只读取头部</translation>
    </message>
    <message>
      <source>&amp;Close Checkpoint</source>
      <translation>关闭检查点(&amp;C)</translation>
    </message>
    <message>
      <source>Close the checkpoint; the last one leaves the start page</source>
      <translation>关闭检查点；关闭最后一个后回到起始页</translation>
    </message>
    <message>
      <source>&amp;Quit</source>
      <translation>退出(&amp;Q)</translation>
    </message>
    <message>
      <source>Stop running jobs and quit</source>
      <translation>停止正在运行的任务并退出</translation>
    </message>
    <message>
      <source>&amp;Undo Choice for Export</source>
      <translation>撤销导出选择(&amp;U)</translation>
    </message>
    <message>
      <source>Take back the last repair or target chosen for the export</source>
      <translation>撤回上一次为导出选择的修复或目标</translation>
    </message>
    <message>
      <source>&amp;Redo Choice for Export</source>
      <translation>重做导出选择(&amp;R)</translation>
    </message>
    <message>
      <source>Choose again what was taken back</source>
      <translation>重新选择刚才撤回的内容</translation>
    </message>
    <message>
      <source>&amp;Copy Key</source>
      <translation>复制键名(&amp;C)</translation>
    </message>
    <message>
      <source>Copy the selected keys, one a line</source>
      <translation>复制选中的键名，每行一个</translation>
    </message>
    <message>
      <source>Copy Row as &amp;JSON</source>
      <translation>将行复制为 JSON(&amp;J)</translation>
    </message>
    <message>
      <source>Copy the selected rows as the report's JSON</source>
      <translation>按报告的 JSON 格式复制选中的行</translation>
    </message>
    <message>
      <source>Copy Rows as &amp;Text</source>
      <translation>将行复制为文本(&amp;T)</translation>
    </message>
    <message>
      <source>Copy the selected rows with their heads, columns apart by tabs</source>
      <translation>复制选中的行及表头，列以制表符分隔</translation>
    </message>
    <message>
      <source>Copy Rows as C&amp;SV</source>
      <translation>将行复制为 CSV(&amp;S)</translation>
    </message>
    <message>
      <source>Copy the selected rows as a table for a spreadsheet, numbers with every digit</source>
      <translation>将选中的行复制为电子表格可用的表，数值保留全部位数</translation>
    </message>
    <message>
      <source>Copy &amp;Why</source>
      <translation>复制原因(&amp;W)</translation>
    </message>
    <message>
      <source>Copy the current key's story as text</source>
      <translation>以文本形式复制当前键的经过</translation>
    </message>
    <message>
      <source>&amp;Filter Keys</source>
      <translation>筛选键(&amp;F)</translation>
    </message>
    <message>
      <source>Go to the filter line</source>
      <translation>转到筛选框</translation>
    </message>
    <message>
      <source>C&amp;lear Filter</source>
      <translation>清除筛选(&amp;L)</translation>
    </message>
    <message>
      <source>Show every row again</source>
      <translation>重新显示所有行</translation>
    </message>
    <message>
      <source>&amp;All Tensors</source>
      <translation>所有张量(&amp;A)</translation>
    </message>
    <message>
      <source>List every tensor of the checkpoint, not the scales alone</source>
      <translation>列出检查点的每个张量，而不只是缩放因子</translation>
    </message>
    <message>
      <source>&amp;Groups</source>
      <translation>分组(&amp;G)</translation>
    </message>
    <message>
      <source>Show patterns, modules and shards beside the keys</source>
      <translation>在键旁显示模式、模块和分片</translation>
    </message>
    <message>
      <source>Go Bac&amp;k</source>
      <translation>后退(&amp;K)</translation>
    </message>
    <message>
      <source>Select what was selected before</source>
      <translation>选中此前选中的内容</translation>
    </message>
    <message>
      <source>Go For&amp;ward</source>
      <translation>前进(&amp;W)</translation>
    </message>
    <message>
      <source>Undo going back</source>
      <translation>撤销后退</translation>
    </message>
    <message>
      <source>Next &amp;Checkpoint</source>
      <translation>下一个检查点(&amp;C)</translation>
    </message>
    <message>
      <source>Go to the checkpoint in the next tab</source>
      <translation>转到下一个标签页的检查点</translation>
    </message>
    <message>
      <source>Pre&amp;vious Checkpoint</source>
      <translation>上一个检查点(&amp;V)</translation>
    </message>
    <message>
      <source>Go to the checkpoint in the previous tab</source>
      <translation>转到上一个标签页的检查点</translation>
    </message>
    <message>
      <source>&amp;Problems</source>
      <translation>问题(&amp;P)</translation>
    </message>
    <message>
      <source>E&amp;ngines</source>
      <translation>引擎(&amp;N)</translation>
    </message>
    <message>
      <source>&amp;Backends</source>
      <translation>后端(&amp;B)</translation>
    </message>
    <message>
      <source>P&amp;lot</source>
      <translation>图表(&amp;L)</translation>
    </message>
    <message>
      <source>E&amp;xport Preview</source>
      <translation>导出预览(&amp;X)</translation>
    </message>
    <message>
      <source>GP&amp;U</source>
      <translation>GPU(&amp;U)</translation>
    </message>
    <message>
      <source>Con&amp;fig</source>
      <translation>配置(&amp;F)</translation>
    </message>
    <message>
      <source>The config files, with the fields that decided something</source>
      <translation>配置文件，并标出起决定作用的字段</translation>
    </message>
    <message>
      <source>L&amp;og</source>
      <translation>日志(&amp;O)</translation>
    </message>
    <message>
      <source>Follow the &amp;System</source>
      <translation>跟随系统(&amp;S)</translation>
    </message>
    <message>
      <source>&amp;Light</source>
      <translation>浅色(&amp;L)</translation>
    </message>
    <message>
      <source>&amp;Dark</source>
      <translation>深色(&amp;D)</translation>
    </message>
    <message>
      <source>Light or &amp;Dark</source>
      <translation>切换浅色/深色(&amp;D)</translation>
    </message>
    <message>
      <source>Switch between the light and the dark theme</source>
      <translation>在浅色与深色主题之间切换</translation>
    </message>
    <message>
      <source>&amp;Reload</source>
      <translation>重新载入(&amp;R)</translation>
    </message>
    <message>
      <source>Read the checkpoint again from disk</source>
      <translation>从磁盘重新读取检查点</translation>
    </message>
    <message>
      <source>S&amp;top Jobs</source>
      <translation>停止任务(&amp;T)</translation>
    </message>
    <message>
      <source>Cancel whatever is running</source>
      <translation>取消所有正在运行的任务</translation>
    </message>
    <message>
      <source>&amp;Next Problem</source>
      <translation>下一个问题(&amp;N)</translation>
    </message>
    <message>
      <source>Go to the next row that a problem concerns</source>
      <translation>转到下一个有问题的行</translation>
    </message>
    <message>
      <source>&amp;Previous Problem</source>
      <translation>上一个问题(&amp;P)</translation>
    </message>
    <message>
      <source>Go to the row before that a problem concerns</source>
      <translation>转到上一个有问题的行</translation>
    </message>
    <message>
      <source>&amp;Export…</source>
      <translation>导出(&amp;E)…</translation>
    </message>
    <message>
      <source>Preview a normalized copy of the checkpoint, then write it</source>
      <translation>预览规范化后的检查点副本，然后写出</translation>
    </message>
    <message>
      <source>Co&amp;mpare</source>
      <translation>比较(&amp;M)</translation>
    </message>
    <message>
      <source>Compare the scales with another checkpoint's</source>
      <translation>与另一个检查点的缩放因子比较</translation>
    </message>
    <message>
      <source>Copy S&amp;hell Command</source>
      <translation>复制命令行(&amp;H)</translation>
    </message>
    <message>
      <source>Copy the command line that says what the window shows</source>
      <translation>复制能给出窗口所示结果的命令行</translation>
    </message>
    <message>
      <source>&amp;Copy Report as JSON</source>
      <translation>将报告复制为 JSON(&amp;C)</translation>
    </message>
    <message>
      <source>Copy the whole report, as the command line prints it</source>
      <translation>复制整份报告，与命令行输出相同</translation>
    </message>
    <message>
      <source>&amp;Save Report…</source>
      <translation>保存报告(&amp;S)…</translation>
    </message>
    <message>
      <source>Save the report as one HTML file, JSON or text, to attach to an issue</source>
      <translation>将报告存为单个 HTML 文件、JSON 或文本，便于附在问题单上</translation>
    </message>
    <message>
      <source>&amp;Verify on GPU</source>
      <translation>在 GPU 上验证(&amp;V)</translation>
    </message>
    <message>
      <source>Run the real loader and compare what each layer holds with the prediction</source>
      <translation>运行真实的加载器，并将每层实际持有的值与预测比较</translation>
    </message>
    <message>
      <source>Back to &amp;Detected Values</source>
      <translation>恢复检测值(&amp;D)</translation>
    </message>
    <message>
      <source>Let engine, backend, architecture and dtypes follow the checkpoint again</source>
      <translation>让引擎、后端、架构和数据类型重新跟随检查点</translation>
    </message>
    <message>
      <source>&amp;Commands…</source>
      <translation>命令(&amp;C)…</translation>
    </message>
    <message>
      <source>Find any command by typing a part of its name</source>
      <translation>输入名称的一部分来查找任意命令</translation>
    </message>
    <message>
      <source>Renaming R&amp;ules…</source>
      <translation>改名规则(&amp;U)…</translation>
    </message>
    <message>
      <source>Write an out-of-tree backend's rules and see at once what they make of the keys</source>
      <translation>编写树外后端的规则，并立即查看其对各键的作用</translation>
    </message>
    <message>
      <source>&amp;Settings…</source>
      <translation>设置(&amp;S)…</translation>
    </message>
    <message>
      <source>Theme, language, the engine to begin with, and the limits of the rules</source>
      <translation>主题、语言、默认引擎和规则的界限</translation>
    </message>
    <message>
      <source>Forget &amp;Recent Checkpoints</source>
      <translation>清空最近打开的检查点(&amp;R)</translation>
    </message>
    <message>
      <source>&amp;Keyboard Shortcuts</source>
      <translation>键盘快捷键(&amp;K)</translation>
    </message>
    <message>
      <source>&amp;About KVScope</source>
      <translation>关于 KVScope(&amp;A)</translation>
    </message>
  </context>
  <context>
    <name>AddressDialog</name>
    <message>
      <source>Open Address</source>
      <translation>打开地址</translation>
    </message>
    <message>
      <source>Address of a checkpoint</source>
      <translation>检查点的地址</translation>
    </message>
    <message>
      <source>hf://ORG/NAME@REVISION, https://host/path/model.safetensors or its index, s3://bucket/folder, gs://bucket/folder. Configs, headers and scales are fetched, nothing else.</source>
      <translation>hf://ORG/NAME@REVISION、https://host/path/model.safetensors 或其索引、s3://bucket/folder、gs://bucket/folder。只获取配置、头部和缩放因子，别无其他。</translation>
    </message>
  </context>
  <context>
    <name>Backends</name>
    <message>
      <source>no quantization</source>
      <translation>未量化</translation>
    </message>
    <message>
      <source>Checkpoint key</source>
      <translation>检查点中的键</translation>
    </message>
    <message>
      <source>in force</source>
      <translation>当前生效</translation>
    </message>
    <message>
      <source>Verdict</source>
      <translation>结论</translation>
    </message>
  </context>
  <context>
    <name>BackendsPanel</name>
    <message>
      <source>Backends side by side</source>
      <translation>后端并列对照</translation>
    </message>
    <message>
      <source>There is no scale to compare backends on.</source>
      <translation>没有可用于比较后端的缩放因子。</translation>
    </message>
    <message>
      <source>Predicting every backend …</source>
      <translation>正在预测每个后端…</translation>
    </message>
    <message>
      <source>Predicting every backend</source>
      <translation>正在预测每个后端</translation>
    </message>
    <message>
      <source>Cancelled. Show this tab again to retry.</source>
      <translation>已取消。再次打开此标签页即可重试。</translation>
    </message>
    <message>
      <source>backends</source>
      <translation>个后端</translation>
    </message>
    <message>
      <source>KV-cache dtypes</source>
      <translation>种 KV 缓存数据类型</translation>
    </message>
    <message>
      <source>{keys} of {total} keys. All {backends} {what} of {engine} do the same with this checkpoint.</source>
      <translation>{total} 个键中的 {keys} 个。{engine} 的全部 {backends} {what}对此检查点的处理都相同。</translation>
    </message>
    <message>
      <source>{keys} of {total} keys. {backends} {what} of {engine} in {groups} groups; ≠ marks what another one does differently.</source>
      <translation>{total} 个键中的 {keys} 个。{engine} 的 {backends} {what}分为 {groups} 组；≠ 标出处理不同之处。</translation>
    </message>
  </context>
  <context>
    <name>Banner</name>
    <message>
      <source>Verdict</source>
      <translation>结论</translation>
    </message>
    <message>
      <source>Next problem  F8</source>
      <translation>下一个问题  F8</translation>
    </message>
    <message>
      <source>Fix by export</source>
      <translation>通过导出修复</translation>
    </message>
    <message>
      <source>Preview a copy of the checkpoint that this engine loads as intended</source>
      <translation>预览一份能被此引擎按预期加载的检查点副本</translation>
    </message>
    <message>
      <source>PREDICTED</source>
      <translation>预测</translation>
    </message>
    <message>
      <source>Worked out without loading the model; Verify on GPU makes it OBSERVED</source>
      <translation>未加载模型推算得出；“在 GPU 上验证”可将其变为实测</translation>
    </message>
    <message>
      <source>OBSERVED</source>
      <translation>实测</translation>
    </message>
    <message>
      <source>The loader ran, and every layer's values were read back</source>
      <translation>加载器已运行，并读回了每层的值</translation>
    </message>
    <message>
      <source>CONTRADICTED</source>
      <translation>不符</translation>
    </message>
    <message>
      <source>The loader ran, and did not do what was predicted</source>
      <translation>加载器已运行，但结果与预测不同</translation>
    </message>
    <message>
      <source>OK</source>
      <translation>正常</translation>
    </message>
    <message>
      <source>Degraded</source>
      <translation>降级</translation>
    </message>
    <message>
      <source>Fails</source>
      <translation>失败</translation>
    </message>
    <message>
      <source>Unknown</source>
      <translation>未知</translation>
    </message>
  </context>
  <context>
    <name>Canvas</name>
    <message>
      <source>Plot of scales</source>
      <translation>缩放因子图表</translation>
    </message>
    <message>
      <source>scale</source>
      <translation>缩放因子</translation>
    </message>
    <message>
      <source>{key}
{value}  (compared checkpoint)</source>
      <translation>{key}
{value}  (被比较的检查点)</translation>
    </message>
    <message>
      <source>layer</source>
      <translation>层</translation>
    </message>
    <message>
      <source>head of {role}</source>
      <translation>{role} 的头</translation>
    </message>
  </context>
  <context>
    <name>CommandPalette</name>
    <message>
      <source>Commands</source>
      <translation>命令</translation>
    </message>
    <message>
      <source>Type a part of a command's name</source>
      <translation>输入命令名称的一部分</translation>
    </message>
    <message>
      <source>Find a command</source>
      <translation>查找命令</translation>
    </message>
  </context>
  <context>
    <name>Commands</name>
    <message>
      <source>Open a file</source>
      <translation>打开文件</translation>
    </message>
    <message>
      <source>Checkpoints (*.safetensors *.json *.bin *.pt *.pth);;All files (*)</source>
      <translation>检查点 (*.safetensors *.json *.bin *.pt *.pth);;所有文件 (*)</translation>
    </message>
    <message>
      <source>Open a checkpoint folder</source>
      <translation>打开检查点文件夹</translation>
    </message>
    <message>
      <source>{count} key copied</source>
      <translation>已复制 {count} 个键名</translation>
    </message>
    <message>
      <source>{count} keys copied</source>
      <translation>已复制 {count} 个键名</translation>
    </message>
    <message>
      <source>{count} row copied as JSON</source>
      <translation>已将 {count} 行复制为 JSON</translation>
    </message>
    <message>
      <source>{count} rows copied as JSON</source>
      <translation>已将 {count} 行复制为 JSON</translation>
    </message>
    <message>
      <source>{count} row copied</source>
      <translation>已复制 {count} 行</translation>
    </message>
    <message>
      <source>{count} rows copied</source>
      <translation>已复制 {count} 行</translation>
    </message>
    <message>
      <source>Story copied</source>
      <translation>经过已复制</translation>
    </message>
    <message>
      <source>Command copied</source>
      <translation>命令已复制</translation>
    </message>
    <message>
      <source>Report copied as JSON</source>
      <translation>报告已复制为 JSON</translation>
    </message>
    <message>
      <source>Save the report</source>
      <translation>保存报告</translation>
    </message>
    <message>
      <source>HTML (*.html);;JSON (*.json);;Text (*.txt)</source>
      <translation>HTML (*.html);;JSON (*.json);;文本 (*.txt)</translation>
    </message>
    <message>
      <source>{path} was not written: {error}</source>
      <translation>未能写入 {path}:{error}</translation>
    </message>
    <message>
      <source>Report saved to {path}</source>
      <translation>报告已保存到 {path}</translation>
    </message>
  </context>
  <context>
    <name>ComparePanel</name>
    <message>
      <source>Comparison</source>
      <translation>比较</translation>
    </message>
    <message>
      <source>Compare with…</source>
      <translation>比较对象…</translation>
    </message>
    <message>
      <source>Rows shown</source>
      <translation>显示的行</translation>
    </message>
    <message>
      <source>Differences</source>
      <translation>差异</translation>
    </message>
    <message>
      <source>Beyond the noise</source>
      <translation>超出噪声</translation>
    </message>
    <message>
      <source>All rows</source>
      <translation>所有行</translation>
    </message>
    <message>
      <source>Copy command</source>
      <translation>复制命令</translation>
    </message>
    <message>
      <source>Copy the command line that says the same</source>
      <translation>复制给出相同结果的命令行</translation>
    </message>
    <message>
      <source>End comparison</source>
      <translation>结束比较</translation>
    </message>
    <message>
      <source>A folder…</source>
      <translation>文件夹…</translation>
    </message>
    <message>
      <source>A file…</source>
      <translation>文件…</translation>
    </message>
    <message>
      <source>Compare with a checkpoint folder</source>
      <translation>与检查点文件夹比较</translation>
    </message>
    <message>
      <source>Compare with a file</source>
      <translation>与文件比较</translation>
    </message>
    <message>
      <source>Checkpoints (*.safetensors *.json *.bin *.pt *.pth);;All files (*)</source>
      <translation>检查点 (*.safetensors *.json *.bin *.pt *.pth);;所有文件 (*)</translation>
    </message>
    <message>
      <source>Reading {path} …</source>
      <translation>正在读取 {path}…</translation>
    </message>
    <message>
      <source>Comparing with {path} was cancelled.</source>
      <translation>与 {path} 的比较已取消。</translation>
    </message>
    <message>
      <source>Neither checkpoint holds a KV-cache scale.</source>
      <translation>两个检查点都不含 KV 缓存缩放因子。</translation>
    </message>
    <message>
      <source>Equal</source>
      <translation>相同</translation>
    </message>
    <message>
      <source>Equal after normalisation</source>
      <translation>规范化后相同</translation>
    </message>
    <message>
      <source>Different</source>
      <translation>不同</translation>
    </message>
    <message>
      <source>B: {name}   {counts}</source>
      <translation>B:{name}   {counts}</translation>
    </message>
    <message>
      <source>Compare this checkpoint's scales with another one's: choose it, or drop it here. Scales are matched by layer and role, so a rename is no difference.</source>
      <translation>将此检查点的缩放因子与另一个检查点的比较：请选择它，或将它拖放到这里。缩放因子按层和角色匹配，因此改名不算差异。</translation>
    </message>
  </context>
  <context>
    <name>Comparison</name>
    <message>
      <source>Change</source>
      <translation>变化</translation>
    </message>
    <message>
      <source>Layer</source>
      <translation>层</translation>
    </message>
    <message>
      <source>Role</source>
      <translation>角色</translation>
    </message>
    <message>
      <source>Value in A</source>
      <translation>A 中的值</translation>
    </message>
    <message>
      <source>Value in B</source>
      <translation>B 中的值</translation>
    </message>
    <message>
      <source>B / A</source>
      <translation>B / A</translation>
    </message>
    <message>
      <source>Key in A</source>
      <translation>A 中的键</translation>
    </message>
    <message>
      <source>Key in B</source>
      <translation>B 中的键</translation>
    </message>
    <message>
      <source>Same</source>
      <translation>相同</translation>
    </message>
    <message>
      <source>Renamed</source>
      <translation>改名</translation>
    </message>
    <message>
      <source>Changed, within noise</source>
      <translation>有变化，在噪声内</translation>
    </message>
    <message>
      <source>Changed</source>
      <translation>有变化</translation>
    </message>
    <message>
      <source>Only in B</source>
      <translation>仅在 B 中</translation>
    </message>
    <message>
      <source>Only in A</source>
      <translation>仅在 A 中</translation>
    </message>
    <message>
      <source>reshaped</source>
      <translation>形状改变</translation>
    </message>
    <message>
      <source>No ratio: the two hold differently many values, a zero or NaN</source>
      <translation>无比值：两者的值个数不同，或含有零或 NaN</translation>
    </message>
    <message>
      <source>{count} same</source>
      <translation>{count} 个相同</translation>
    </message>
    <message>
      <source>{count} renamed</source>
      <translation>{count} 个改名</translation>
    </message>
    <message>
      <source>{count} changed</source>
      <translation>{count} 个有变化</translation>
    </message>
    <message>
      <source>{count} only in B</source>
      <translation>{count} 个仅在 B 中</translation>
    </message>
    <message>
      <source>{count} only in A</source>
      <translation>{count} 个仅在 A 中</translation>
    </message>
  </context>
  <context>
    <name>ConfigPanel</name>
    <message>
      <source>Config files and shards</source>
      <translation>配置文件与分片</translation>
    </message>
    <message>
      <source>Text of the file</source>
      <translation>文件内容</translation>
    </message>
    <message>
      <source>Fields that decided something</source>
      <translation>起决定作用的字段</translation>
    </message>
    <message>
      <source>{file}  ·  decided something</source>
      <translation>{file}  ·  起决定作用</translation>
    </message>
    <message>
      <source>metadata of {file}</source>
      <translation>{file} 的元数据</translation>
    </message>
    <message>
      <source>This checkpoint has neither a config file nor metadata.</source>
      <translation>此检查点既没有配置文件，也没有元数据。</translation>
    </message>
  </context>
  <context>
    <name>Coverage</name>
    <message>
      <source>Coverage</source>
      <translation>覆盖</translation>
    </message>
    <message>
      <source>No attention layer is known for this checkpoint, and it holds no KV scale.</source>
      <translation>此检查点没有已知的注意力层，也不含 KV 缩放因子。</translation>
    </message>
    <message>
      <source>Show only {status}</source>
      <translation>只显示“{status}”</translation>
    </message>
  </context>
  <context>
    <name>Detail</name>
    <message>
      <source>Evidence</source>
      <translation>证据</translation>
    </message>
    <message>
      <source>Consequence</source>
      <translation>后果</translation>
    </message>
    <message>
      <source>Fix</source>
      <translation>修复</translation>
    </message>
    <message>
      <source>Scope</source>
      <translation>范围</translation>
    </message>
    <message>
      <source>Source</source>
      <translation>来源</translation>
    </message>
    <message>
      <source>Apply as filter</source>
      <translation>用作筛选</translation>
    </message>
    <message>
      <source>Select its rows</source>
      <translation>选中相关行</translation>
    </message>
    <message>
      <source>Fix by export</source>
      <translation>通过导出修复</translation>
    </message>
    <message>
      <source>{count} key</source>
      <translation>{count} 个键</translation>
    </message>
    <message>
      <source>{count} keys</source>
      <translation>{count} 个键</translation>
    </message>
    <message>
      <source>the whole checkpoint</source>
      <translation>整个检查点</translation>
    </message>
    <message>
      <source>{keys}, layers {layers}</source>
      <translation>{keys}，第 {layers} 层</translation>
    </message>
    <message>
      <source>layers {layers}</source>
      <translation>第 {layers} 层</translation>
    </message>
  </context>
  <context>
    <name>Documents</name>
    <message>
      <source>Open checkpoints</source>
      <translation>打开的检查点</translation>
    </message>
  </context>
  <context>
    <name>DropZone</name>
    <message>
      <source>Drop a checkpoint here</source>
      <translation>将检查点拖放到这里</translation>
    </message>
    <message>
      <source>a model folder, a .safetensors shard or its index, a PyTorch file</source>
      <translation>模型文件夹、.safetensors 分片或其索引、PyTorch 文件</translation>
    </message>
  </context>
  <context>
    <name>EngineDetail</name>
    <message>
      <source>Keys under two engines</source>
      <translation>两个引擎下的键</translation>
    </message>
    <message>
      <source>Choose another engine to see, key by key, where the two part.</source>
      <translation>选择另一个引擎，逐键查看两者的分歧之处。</translation>
    </message>
    <message>
      <source>Use</source>
      <translation>使用</translation>
    </message>
    <message>
      <source>Predict with this engine (Return)</source>
      <translation>用此引擎预测(回车)</translation>
    </message>
    <message>
      <source>Verdict in this engine</source>
      <translation>在此引擎中的结论</translation>
    </message>
    <message>
      <source>Differences from the built-in profile</source>
      <translation>与内置配置的差异</translation>
    </message>
    <message>
      <source>Why they differ</source>
      <translation>不同的原因</translation>
    </message>
    <message>
      <source>Use {engine}</source>
      <translation>使用 {engine}</translation>
    </message>
    <message>
      <source>Mended by {mend}.</source>
      <translation>可用 {mend} 修复。</translation>
    </message>
    <message>
      <source>Every key ends alike in both.</source>
      <translation>每个键在两者中的结果都相同。</translation>
    </message>
    <message>
      <source>{differing} of {count} keys end differently.
{why}</source>
      <translation>{count} 个键中有 {differing} 个结果不同。
{why}</translation>
    </message>
  </context>
  <context>
    <name>Engines</name>
    <message>
      <source>Engine</source>
      <translation>引擎</translation>
    </message>
    <message>
      <source>Outcome</source>
      <translation>结果</translation>
    </message>
    <message>
      <source>Layers</source>
      <translation>层</translation>
    </message>
    <message>
      <source>What it does</source>
      <translation>它做什么</translation>
    </message>
    <message>
      <source>{served} of {expecting}</source>
      <translation>{served} / {expecting}</translation>
    </message>
    <message>
      <source>In force</source>
      <translation>当前生效</translation>
    </message>
    <message>
      <source>Mended by {mend}</source>
      <translation>可用 {mend} 修复</translation>
    </message>
    <message>
      <source>{engine}, in force</source>
      <translation>{engine}，当前生效</translation>
    </message>
    <message>
      <source>an export ({count} of {all} layers are served then)</source>
      <translation>导出(之后 {all} 层中有 {count} 层得到满足)</translation>
    </message>
    <message>
      <source>--kv-cache-dtype fp8_e4m3</source>
      <translation>--kv-cache-dtype fp8_e4m3</translation>
    </message>
    <message>
      <source>Checkpoint key</source>
      <translation>检查点中的键</translation>
    </message>
  </context>
  <context>
    <name>EnginesPanel</name>
    <message>
      <source>All engines in a sentence</source>
      <translation>一句话概括所有引擎</translation>
    </message>
    <message>
      <source>Engines</source>
      <translation>引擎</translation>
    </message>
    <message>
      <source>Open a checkpoint to compare engines on it.</source>
      <translation>打开检查点以比较各引擎。</translation>
    </message>
    <message>
      <source>Predicting every engine …</source>
      <translation>正在预测每个引擎…</translation>
    </message>
    <message>
      <source>Predicting every engine</source>
      <translation>正在预测每个引擎</translation>
    </message>
    <message>
      <source>Cancelled. Show this tab again to retry.</source>
      <translation>已取消。再次打开此标签页即可重试。</translation>
    </message>
  </context>
  <context>
    <name>ErrorCanvas</name>
    <message>
      <source>Plot of errors</source>
      <translation>误差图表</translation>
    </message>
    <message>
      <source>relative error</source>
      <translation>相对误差</translation>
    </message>
    <message>
      <source>layer</source>
      <translation>层</translation>
    </message>
  </context>
  <context>
    <name>Errors</name>
    <message>
      <source>scales received</source>
      <translation>收到的缩放因子</translation>
    </message>
    <message>
      <source>at 1.0</source>
      <translation>为 1.0 时</translation>
    </message>
    <message>
      <source>k and v exchanged</source>
      <translation>k 与 v 互换</translation>
    </message>
    <message>
      <source>fitted to the data</source>
      <translation>按数据拟合</translation>
    </message>
  </context>
  <context>
    <name>ExportPanel</name>
    <message>
      <source>Change</source>
      <translation>变化</translation>
    </message>
    <message>
      <source>Before</source>
      <translation>之前</translation>
    </message>
    <message>
      <source>→ After</source>
      <translation>→ 之后</translation>
    </message>
    <message>
      <source>Stored as</source>
      <translation>存储为</translation>
    </message>
    <message>
      <source>Why</source>
      <translation>原因</translation>
    </message>
    <message>
      <source>What the export changes</source>
      <translation>导出会改变什么</translation>
    </message>
    <message>
      <source>Plan again</source>
      <translation>重新规划</translation>
    </message>
    <message>
      <source>Open a checkpoint to see what an export would change.</source>
      <translation>打开检查点以查看导出会改变什么。</translation>
    </message>
    <message>
      <source>Planning the export …</source>
      <translation>正在规划导出…</translation>
    </message>
    <message>
      <source>planning the export</source>
      <translation>正在规划导出</translation>
    </message>
    <message>
      <source>Planning the export</source>
      <translation>正在规划导出</translation>
    </message>
    <message>
      <source>Writing {folder} …</source>
      <translation>正在写入 {folder}…</translation>
    </message>
    <message>
      <source>Exporting to {folder}</source>
      <translation>正在导出到 {folder}</translation>
    </message>
    <message>
      <source>What {engine} takes</source>
      <translation>{engine} 所接受的形式</translation>
    </message>
    <message>
      <source>Convention: {engine}</source>
      <translation>约定：{engine}</translation>
    </message>
    <message>
      <source>Cancelled.</source>
      <translation>已取消。</translation>
    </message>
    <message>
      <source>Written to {folder}: {size} in {seconds:.1f} s, {count} tensors compared with the source.</source>
      <translation>已写入 {folder}:{size}，用时 {seconds:.1f} 秒，{count} 个张量已与源比较。</translation>
    </message>
    <message>
      <source>Cancelled; nothing was left behind.</source>
      <translation>已取消；没有留下任何文件。</translation>
    </message>
    <message>
      <source>target {target}</source>
      <translation>目标 {target}</translation>
    </message>
    <message>
      <source>without {code}</source>
      <translation>不做 {code}</translation>
    </message>
    <message>
      <source>Take the scales from</source>
      <translation>取缩放因子自</translation>
    </message>
    <message>
      <source>Scales (*.json *.safetensors);;All files (*)</source>
      <translation>缩放因子 (*.json *.safetensors);;所有文件 (*)</translation>
    </message>
    <message>
      <source>scales from a file</source>
      <translation>来自文件的缩放因子</translation>
    </message>
    <message>
      <source>Choose an empty folder</source>
      <translation>选择一个空文件夹</translation>
    </message>
  </context>
  <context>
    <name>ExportSheet</name>
    <message>
      <source>What the copy is for</source>
      <translation>副本的用途</translation>
    </message>
    <message>
      <source>The engine above: what it takes, changing least</source>
      <translation>上面的引擎：它所接受的形式，改动最少</translation>
    </message>
    <message>
      <source>Names as they are</source>
      <translation>保持原有名称</translation>
    </message>
    <message>
      <source>New folder</source>
      <translation>新文件夹</translation>
    </message>
    <message>
      <source>Browse…</source>
      <translation>浏览…</translation>
    </message>
    <message>
      <source>How unchanged bytes are written</source>
      <translation>未改变的字节如何写入</translation>
    </message>
    <message>
      <source>Cloned where the disk can, else copied</source>
      <translation>磁盘支持时克隆，否则复制</translation>
    </message>
    <message>
      <source>Hard links of unchanged shards</source>
      <translation>为未改变的分片建硬链接</translation>
    </message>
    <message>
      <source>Cloned, or refused</source>
      <translation>克隆，否则拒绝</translation>
    </message>
    <message>
      <source>Copied</source>
      <translation>复制</translation>
    </message>
    <message>
      <source>Write</source>
      <translation>写出</translation>
    </message>
    <message>
      <source>Open the result</source>
      <translation>打开结果</translation>
    </message>
    <message>
      <source>Undo</source>
      <translation>撤销</translation>
    </message>
    <message>
      <source>Redo</source>
      <translation>重做</translation>
    </message>
    <message>
      <source>Take scales from…</source>
      <translation>取缩放因子自…</translation>
    </message>
    <message>
      <source>For</source>
      <translation>用于</translation>
    </message>
    <message>
      <source>Written</source>
      <translation>写入方式</translation>
    </message>
    <message>
      <source>Repairs</source>
      <translation>修复</translation>
    </message>
    <message>
      <source>Scales from {path}</source>
      <translation>来自 {path} 的缩放因子</translation>
    </message>
    <message>
      <source>kept</source>
      <translation>保留</translation>
    </message>
    <message>
      <source>renamed</source>
      <translation>改名</translation>
    </message>
    <message>
      <source>reshaped</source>
      <translation>形状改变</translation>
    </message>
    <message>
      <source>duplicated</source>
      <translation>复制</translation>
    </message>
    <message>
      <source>dropped</source>
      <translation>丢弃</translation>
    </message>
    <message>
      <source>added</source>
      <translation>新增</translation>
    </message>
    <message>
      <source>repaired</source>
      <translation>修复</translation>
    </message>
    <message>
      <source>{changes}; names: {names}. Needs {space}.</source>
      <translation>{changes}；名称：{names}。需要 {space}。</translation>
    </message>
    <message>
      <source>no scale changes</source>
      <translation>没有缩放因子改变</translation>
    </message>
    <message>
      <source>as they are</source>
      <translation>保持原样</translation>
    </message>
    <message>
      <source>{file} changes</source>
      <translation>{file} 会改变</translation>
    </message>
    <message>
      <source>Judged with --kv-cache-dtype {dtype}, under which the scales are used.</source>
      <translation>按 --kv-cache-dtype {dtype} 判断，此时缩放因子会被使用。</translation>
    </message>
    <message>
      <source>{count} keys stay unreachable</source>
      <translation>{count} 个键仍无法到达</translation>
    </message>
    <message>
      <source>Copied as they are</source>
      <translation>原样复制</translation>
    </message>
    <message>
      <source>Before</source>
      <translation>之前</translation>
    </message>
    <message>
      <source>After</source>
      <translation>之后</translation>
    </message>
    <message>
      <source>Predicted</source>
      <translation>预测</translation>
    </message>
  </context>
  <context>
    <name>Core</name>
    <message>
      <source>The engine refuses the model</source>
      <translation>引擎拒绝该模型</translation>
    </message>
    <message>
      <source>The engine stops while loading</source>
      <translation>引擎在加载时停止</translation>
    </message>
    <message>
      <source>The scale has a shape that its parameter does not take</source>
      <translation>缩放因子的形状不被其参数接受</translation>
    </message>
    <message>
      <source>The number of per-head scales is not the number of KV heads</source>
      <translation>逐头缩放因子的个数与 KV 头数不符</translation>
    </message>
    <message>
      <source>A layer fails after loading</source>
      <translation>某层在加载后失败</translation>
    </message>
    <message>
      <source>No attention layer receives these scales</source>
      <translation>没有注意力层收到这些缩放因子</translation>
    </message>
    <message>
      <source>No attention layer receives these q or prob scales</source>
      <translation>没有注意力层收到这些 q 或 prob 缩放因子</translation>
    </message>
    <message>
      <source>Several tensors with different values reach one parameter</source>
      <translation>多个值不同的张量到达同一参数</translation>
    </message>
    <message>
      <source>Layers have a v scale but no k scale</source>
      <translation>有些层只有 v 缩放因子而没有 k</translation>
    </message>
    <message>
      <source>Layers have a k scale but no v scale</source>
      <translation>有些层只有 k 缩放因子而没有 v</translation>
    </message>
    <message>
      <source>One scale is stored for k and v, and only k receives it</source>
      <translation>k 与 v 共存一个缩放因子，而只有 k 收到它</translation>
    </message>
    <message>
      <source>Some attention layers have no scale</source>
      <translation>部分注意力层没有缩放因子</translation>
    </message>
    <message>
      <source>The scales go unused: the KV cache is not quantized</source>
      <translation>缩放因子未被使用：KV 缓存未量化</translation>
    </message>
    <message>
      <source>The scales go unused: this cache computes its own</source>
      <translation>缩放因子未被使用：此缓存自行计算</translation>
    </message>
    <message>
      <source>There are no q scales</source>
      <translation>没有 q 缩放因子</translation>
    </message>
    <message>
      <source>q or prob scales are applied although the KV cache is not quantized</source>
      <translation>KV 缓存未量化，却应用了 q 或 prob 缩放因子</translation>
    </message>
    <message>
      <source>Scales on modules without a KV cache of their own</source>
      <translation>缩放因子位于没有自身 KV 缓存的模块上</translation>
    </message>
    <message>
      <source>Scales on draft (MTP) layers</source>
      <translation>缩放因子位于草稿(MTP)层上</translation>
    </message>
    <message>
      <source>Zero points or biases, all zero</source>
      <translation>零点或偏置，全为零</translation>
    </message>
    <message>
      <source>Zero points or biases that the engine does not apply</source>
      <translation>引擎不会应用的零点或偏置</translation>
    </message>
    <message>
      <source>Uninitialised memory in place of scales</source>
      <translation>缩放因子处是未初始化的内存</translation>
    </message>
    <message>
      <source>NaN or infinite scales</source>
      <translation>缩放因子为 NaN 或无穷大</translation>
    </message>
    <message>
      <source>Negative scales</source>
      <translation>缩放因子为负</translation>
    </message>
    <message>
      <source>Scales of exactly zero</source>
      <translation>缩放因子恰为零</translation>
    </message>
    <message>
      <source>An amax is stored instead of a scale</source>
      <translation>存储的是 amax 而不是缩放因子</translation>
    </message>
    <message>
      <source>The reciprocal of the scale is stored</source>
      <translation>存储的是缩放因子的倒数</translation>
    </message>
    <message>
      <source>Scales of exactly 1.0</source>
      <translation>缩放因子恰为 1.0</translation>
    </message>
    <message>
      <source>Scales far above the other layers'</source>
      <translation>缩放因子远大于其他层</translation>
    </message>
    <message>
      <source>Scales of exactly the type's machine epsilon</source>
      <translation>缩放因子恰为该类型的机器精度</translation>
    </message>
    <message>
      <source>Scales smaller than any real calibration gave</source>
      <translation>缩放因子小于任何真实校准的结果</translation>
    </message>
    <message>
      <source>Scales above 1.0</source>
      <translation>缩放因子大于 1.0</translation>
    </message>
    <message>
      <source>Scales above 0.5</source>
      <translation>缩放因子大于 0.5</translation>
    </message>
    <message>
      <source>k and v look swapped</source>
      <translation>k 与 v 似乎互换了</translation>
    </message>
    <message>
      <source>k and v of a layer are far apart from the other layers' ratio</source>
      <translation>某层 k 与 v 之比远离其他层</translation>
    </message>
    <message>
      <source>Scales stored in a type that is too coarse for them</source>
      <translation>缩放因子的存储类型过于粗糙</translation>
    </message>
    <message>
      <source>Scales are rounded to the engine's type</source>
      <translation>缩放因子被舍入为引擎的类型</translation>
    </message>
    <message>
      <source>k and v are equal in every layer</source>
      <translation>每层的 k 与 v 都相等</translation>
    </message>
    <message>
      <source>A quantized KV cache is declared, but no scale is stored</source>
      <translation>声明了量化的 KV 缓存，却没有存储缩放因子</translation>
    </message>
    <message>
      <source>The declared KV scheme is dynamic</source>
      <translation>声明的 KV 方案是动态的</translation>
    </message>
    <message>
      <source>Scales are stored, but no quantized KV cache is declared</source>
      <translation>存储了缩放因子，却没有声明量化的 KV 缓存</translation>
    </message>
    <message>
      <source>The checkpoint's declaration is contradictory or incomplete</source>
      <translation>检查点的声明自相矛盾或不完整</translation>
    </message>
    <message>
      <source>Another quantization method was chosen than the checkpoint declares</source>
      <translation>所选量化方法与检查点的声明不同</translation>
    </message>
    <message>
      <source>Files cannot be read</source>
      <translation>文件无法读取</translation>
    </message>
    <message>
      <source>Shards that the index names are missing</source>
      <translation>索引列出的分片缺失</translation>
    </message>
    <message>
      <source>Values of scales cannot be read</source>
      <translation>缩放因子的值无法读取</translation>
    </message>
    <message>
      <source>The index and the shards disagree</source>
      <translation>索引与分片不一致</translation>
    </message>
    <message>
      <source>A key stands in several shards</source>
      <translation>一个键出现在多个分片中</translation>
    </message>
    <message>
      <source>k and v of a layer stand in different shards</source>
      <translation>同一层的 k 与 v 位于不同分片</translation>
    </message>
    <message>
      <source>A file with KV scales is not named by the index</source>
      <translation>含 KV 缩放因子的文件未被索引列出</translation>
    </message>
  </context>
  <context>
    <name>ForwardView</name>
    <message>
      <source>What the scales cost</source>
      <translation>缩放因子的代价</translation>
    </message>
    <message>
      <source>- -  rounding alone</source>
      <translation>- -  仅舍入</translation>
    </message>
    <message>
      <source>Tick “Run the attention too” to see what the scales cost: the error of each layer's attention output with the scales received, with 1.0, and with k and v exchanged.</source>
      <translation>勾选“同时运行注意力”以查看缩放因子的代价：每层注意力输出在使用收到的缩放因子、使用 1.0、以及 k 与 v 互换时的误差。</translation>
    </message>
    <message>
      <source>Keys and values: {words} ({tokens} tokens, {format}, seed {seed})</source>
      <translation>键与值：{words}({tokens} 个 token,{format}，种子 {seed})</translation>
    </message>
  </context>
  <context>
    <name>GpuPanel</name>
    <message>
      <source>Ranks</source>
      <translation>Rank 数</translation>
    </message>
    <message>
      <source>Device</source>
      <translation>设备</translation>
    </message>
    <message>
      <source>looking for devices …</source>
      <translation>正在查找设备…</translation>
    </message>
    <message>
      <source>Run the loader</source>
      <translation>运行加载器</translation>
    </message>
    <message>
      <source>Cancel</source>
      <translation>取消</translation>
    </message>
    <message>
      <source>Load every tensor, not the scales alone</source>
      <translation>加载每个张量，而不只是缩放因子</translation>
    </message>
    <message>
      <source>The whole model must fit on the device; each tensor is compared bit for bit</source>
      <translation>整个模型必须能放入设备；每个张量逐位比较</translation>
    </message>
    <message>
      <source>Run the attention too</source>
      <translation>同时运行注意力</translation>
    </message>
    <message>
      <source>Writes keys and values to a paged float8 cache and measures what the scales cost the output</source>
      <translation>将键和值写入分页的 float8 缓存，并测量缩放因子给输出带来的代价</translation>
    </message>
    <message>
      <source>with the checkpoint's projections</source>
      <translation>使用检查点的投影</translation>
    </message>
    <message>
      <source>Keys and values from the layers' own weights, where PyTorch can read them; drawn otherwise</source>
      <translation>在 PyTorch 能读取时，键和值由各层自身的权重得出；否则随机生成</translation>
    </message>
    <message>
      <source>Tensor-parallel ranks</source>
      <translation>张量并行 rank 数</translation>
    </message>
    <message>
      <source>Each rank is a process of its own, with CUDA on a GPU of its own</source>
      <translation>每个 rank 是独立的进程，使用 CUDA 时各占一块 GPU</translation>
    </message>
    <message>
      <source>Why CUDA cannot be used here</source>
      <translation>此处无法使用 CUDA 的原因</translation>
    </message>
    <message>
      <source>Command for a machine with a GPU</source>
      <translation>用于有 GPU 的机器的命令</translation>
    </message>
    <message>
      <source>Copy command</source>
      <translation>复制命令</translation>
    </message>
    <message>
      <source>Step</source>
      <translation>步骤</translation>
    </message>
    <message>
      <source>Time</source>
      <translation>用时</translation>
    </message>
    <message>
      <source>What it did</source>
      <translation>做了什么</translation>
    </message>
    <message>
      <source>Steps</source>
      <translation>步骤</translation>
    </message>
    <message>
      <source>Results of the run</source>
      <translation>运行结果</translation>
    </message>
    <message>
      <source>Values</source>
      <translation>值</translation>
    </message>
    <message>
      <source>Attention</source>
      <translation>注意力</translation>
    </message>
    <message>
      <source>importing PyTorch</source>
      <translation>正在导入 PyTorch</translation>
    </message>
    <message>
      <source>Looking for devices</source>
      <translation>正在查找设备</translation>
    </message>
    <message>
      <source>Running the loader on {device}</source>
      <translation>正在 {device} 上运行加载器</translation>
    </message>
    <message>
      <source>no device</source>
      <translation>没有设备</translation>
    </message>
    <message>
      <source>Cancelled. Run it again when you like.</source>
      <translation>已取消。可随时再次运行。</translation>
    </message>
    <message>
      <source>CUDA cannot be used here: {reason}. On a machine with a GPU, run:</source>
      <translation>此处无法使用 CUDA:{reason}。请在有 GPU 的机器上运行：</translation>
    </message>
    <message>
      <source>The loader runs …</source>
      <translation>加载器正在运行…</translation>
    </message>
    <message>
      <source>Runs the unified loader on the scales and compares, layer by layer, what the attention layers hold with what was predicted. PREDICTED becomes OBSERVED.</source>
      <translation>对缩放因子运行统一加载器，并逐层比较注意力层实际持有的值与预测值。“预测”将变为“实测”。</translation>
    </message>
    <message>
      <source>OBSERVED</source>
      <translation>实测</translation>
    </message>
    <message>
      <source>CONTRADICTED</source>
      <translation>不符</translation>
    </message>
    <message>
      <source>NOT RUN</source>
      <translation>未运行</translation>
    </message>
    <message>
      <source>AGREES</source>
      <translation>一致</translation>
    </message>
    <message>
      <source>The loader that KVScope runs is that of {default}, not of {engine}: choose it to verify.</source>
      <translation>KVScope 运行的是 {default} 的加载器，而不是 {engine} 的：请选择它来验证。</translation>
    </message>
  </context>
  <context>
    <name>Groups</name>
    <message>
      <source>{size}, {tensors} tensors, header {header}</source>
      <translation>{size},{tensors} 个张量，头部 {header}</translation>
    </message>
    <message>
      <source>… and {count} more; use the filter</source>
      <translation>… 还有 {count} 个；请使用筛选</translation>
    </message>
    <message>
      <source>Group</source>
      <translation>组</translation>
    </message>
  </context>
  <context>
    <name>GroupsPanel</name>
    <message>
      <source>Groups</source>
      <translation>分组</translation>
    </message>
    <message>
      <source>Patterns</source>
      <translation>模式</translation>
    </message>
    <message>
      <source>Modules</source>
      <translation>模块</translation>
    </message>
    <message>
      <source>Shards</source>
      <translation>分片</translation>
    </message>
    <message>
      <source>Group by {what}</source>
      <translation>按{what}分组</translation>
    </message>
    <message>
      <source>Grouping names</source>
      <translation>正在对名称分组</translation>
    </message>
  </context>
  <context>
    <name>Header</name>
    <message>
      <source>Engine</source>
      <translation>引擎</translation>
    </message>
    <message>
      <source>Backend</source>
      <translation>后端</translation>
    </message>
    <message>
      <source>Architecture</source>
      <translation>架构</translation>
    </message>
    <message>
      <source>KV cache dtype</source>
      <translation>KV 缓存类型</translation>
    </message>
    <message>
      <source>Model dtype</source>
      <translation>模型类型</translation>
    </message>
    <message>
      <source>Open</source>
      <translation>打开</translation>
    </message>
    <message>
      <source>Reload</source>
      <translation>重新载入</translation>
    </message>
    <message>
      <source>Verify on GPU</source>
      <translation>在 GPU 上验证</translation>
    </message>
    <message>
      <source>Export…</source>
      <translation>导出…</translation>
    </message>
    <message>
      <source>{engine} decides by the KV-cache dtype alone</source>
      <translation>{engine} 只按 KV 缓存数据类型决定</translation>
    </message>
  </context>
  <context>
    <name>HeldView</name>
    <message>
      <source>Layer</source>
      <translation>层</translation>
    </message>
    <message>
      <source>Attribute</source>
      <translation>属性</translation>
    </message>
    <message>
      <source>Expected</source>
      <translation>预期</translation>
    </message>
    <message>
      <source>Held</source>
      <translation>实际</translation>
    </message>
    <message>
      <source>Dtype</source>
      <translation>数据类型</translation>
    </message>
    <message>
      <source>Max. error</source>
      <translation>最大误差</translation>
    </message>
    <message>
      <source>Compared with</source>
      <translation>比较对象</translation>
    </message>
    <message>
      <source>Expected and held values</source>
      <translation>预期值与实际值</translation>
    </message>
    <message>
      <source>Differences only</source>
      <translation>仅显示差异</translation>
    </message>
    <message>
      <source>{count} values, {wrong} differ</source>
      <translation>{count} 个值，{wrong} 个不同</translation>
    </message>
    <message>
      <source>file</source>
      <translation>文件</translation>
    </message>
    <message>
      <source>prediction</source>
      <translation>预测</translation>
    </message>
    <message>
      <source>rank {rank}: {layer}</source>
      <translation>rank {rank}:{layer}</translation>
    </message>
    <message>
      <source>nothing</source>
      <translation>无</translation>
    </message>
  </context>
  <context>
    <name>Jobs</name>
    <message>
      <source>{job} stopped on an unexpected {error}: {text}</source>
      <translation>{job}因意外的 {error} 而停止：{text}</translation>
    </message>
    <message>
      <source>Its details belong into a report.</source>
      <translation>请将其详情写入问题报告。</translation>
    </message>
  </context>
  <context>
    <name>Keys</name>
    <message>
      <source>Status</source>
      <translation>状态</translation>
    </message>
    <message>
      <source>Layer</source>
      <translation>层</translation>
    </message>
    <message>
      <source>Role</source>
      <translation>角色</translation>
    </message>
    <message>
      <source>Checkpoint key</source>
      <translation>检查点中的键</translation>
    </message>
    <message>
      <source>→ Engine parameter</source>
      <translation>→ 引擎参数</translation>
    </message>
    <message>
      <source>Value</source>
      <translation>值</translation>
    </message>
    <message>
      <source>Dtype</source>
      <translation>数据类型</translation>
    </message>
    <message>
      <source>Shape</source>
      <translation>形状</translation>
    </message>
    <message>
      <source>Convention</source>
      <translation>约定</translation>
    </message>
    <message>
      <source>What becomes of the tensor in the chosen engine</source>
      <translation>此张量在所选引擎中的结局</translation>
    </message>
    <message>
      <source>The parameter it reaches, else the name the engine looked for last</source>
      <translation>它到达的参数，否则为引擎最后查找的名称</translation>
    </message>
    <message>
      <source>The stored number; smallest and largest of several</source>
      <translation>存储的数值；多个值时为最小与最大</translation>
    </message>
    <message>
      <source>The way of naming and storing scales that the key follows</source>
      <translation>此键所遵循的命名与存储约定</translation>
    </message>
    <message>
      <source>no tensor</source>
      <translation>没有张量</translation>
    </message>
    <message>
      <source>{name}: no parameter has this name</source>
      <translation>{name}：没有此名称的参数</translation>
    </message>
  </context>
  <context>
    <name>KeysPanel</name>
    <message>
      <source>Keys</source>
      <translation>键</translation>
    </message>
    <message>
      <source>Clear filter</source>
      <translation>清除筛选</translation>
    </message>
    <message>
      <source>Choose columns</source>
      <translation>选择列</translation>
    </message>
    <message>
      <source>Filter: words, layer:3-7, role:k, status:dropped, value:&gt;0.5 …</source>
      <translation>筛选：词语、layer:3-7、role:k、status:dropped、value:&gt;0.5 …</translation>
    </message>
    <message>
      <source>Filter keys</source>
      <translation>筛选键</translation>
    </message>
    <message>
      <source>Terms are AND-ed; a minus turns one round; commas mean or.
Fields: {fields}
Examples: k_proj -layer:0   value:&gt;0.5   shape:8x1x1   status:dropped,missing   "two words"</source>
      <translation>各条件须同时满足；减号表示取反；逗号表示“或”。
字段：{fields}
示例：k_proj -layer:0   value:&gt;0.5   shape:8x1x1   status:dropped,missing   "two words"</translation>
    </message>
    <message>
      <source>listing all tensors</source>
      <translation>正在列出所有张量</translation>
    </message>
    <message>
      <source>Listing all tensors</source>
      <translation>正在列出所有张量</translation>
    </message>
    <message>
      <source>tensors</source>
      <translation>个张量</translation>
    </message>
    <message>
      <source>scales</source>
      <translation>个缩放因子</translation>
    </message>
    <message>
      <source>{shown} of {total} {what}</source>
      <translation>{total} {what}中的 {shown}</translation>
    </message>
    <message>
      <source>No row matches the filter.</source>
      <translation>没有符合筛选的行。</translation>
    </message>
    <message>
      <source>This checkpoint holds no KV-cache scale. View &gt; All Tensors lists what it does hold.</source>
      <translation>此检查点不含 KV 缓存缩放因子。“视图 &gt; 所有张量”可列出其中的内容。</translation>
    </message>
  </context>
  <context>
    <name>LogPanel</name>
    <message>
      <source>Log</source>
      <translation>日志</translation>
    </message>
    <message>
      <source>Copy all</source>
      <translation>全部复制</translation>
    </message>
    <message>
      <source>Clear</source>
      <translation>清空</translation>
    </message>
  </context>
  <context>
    <name>Menus</name>
    <message>
      <source>Automatic</source>
      <translation>自动</translation>
    </message>
  </context>
  <context>
    <name>Picker</name>
    <message>
      <source>Automatic</source>
      <translation>自动</translation>
    </message>
    <message>
      <source>not known</source>
      <translation>未知</translation>
    </message>
    <message>
      <source>Auto: {value}</source>
      <translation>自动：{value}</translation>
    </message>
  </context>
  <context>
    <name>Pickers</name>
    <message>
      <source>chosen</source>
      <translation>手动选择</translation>
    </message>
    <message>
      <source>from config</source>
      <translation>来自配置</translation>
    </message>
    <message>
      <source>from tensors</source>
      <translation>来自张量</translation>
    </message>
    <message>
      <source>default</source>
      <translation>默认</translation>
    </message>
    <message>
      <source>unknown</source>
      <translation>未知</translation>
    </message>
  </context>
  <context>
    <name>PlotPanel</name>
    <message>
      <source>What is plotted</source>
      <translation>绘制内容</translation>
    </message>
    <message>
      <source>drag: select · wheel: zoom · double click: all</source>
      <translation>拖动：选择 · 滚轮：缩放 · 双击：全部</translation>
    </message>
    <message>
      <source>Save the plot as {kind}</source>
      <translation>将图表存为 {kind}</translation>
    </message>
    <message>
      <source>hollow, dashed: {name}</source>
      <translation>空心、虚线：{name}</translation>
    </message>
    <message>
      <source>Open a checkpoint to plot its scales.</source>
      <translation>打开检查点以绘制其缩放因子。</translation>
    </message>
    <message>
      <source>There is no scale value to plot.</source>
      <translation>没有可绘制的缩放因子。</translation>
    </message>
    <message>
      <source>Preparing the plot …</source>
      <translation>正在准备图表…</translation>
    </message>
    <message>
      <source>Scales by layer</source>
      <translation>各层的缩放因子</translation>
    </message>
    <message>
      <source>Heads of {role}</source>
      <translation>{role} 的各头</translation>
    </message>
    <message>
      <source>Show {role}</source>
      <translation>显示 {role}</translation>
    </message>
    <message>
      <source>PNG image (*.png)</source>
      <translation>PNG 图像 (*.png)</translation>
    </message>
    <message>
      <source>SVG drawing (*.svg)</source>
      <translation>SVG 图形 (*.svg)</translation>
    </message>
    <message>
      <source>CSV table (*.csv)</source>
      <translation>CSV 表格 (*.csv)</translation>
    </message>
    <message>
      <source>Save the plot</source>
      <translation>保存图表</translation>
    </message>
    <message>
      <source>Not saved: {error}</source>
      <translation>未保存：{error}</translation>
    </message>
  </context>
  <context>
    <name>Preferences</name>
    <message>
      <source>Settings</source>
      <translation>设置</translation>
    </message>
    <message>
      <source>Theme</source>
      <translation>主题</translation>
    </message>
    <message>
      <source>As the system</source>
      <translation>跟随系统</translation>
    </message>
    <message>
      <source>Light</source>
      <translation>浅色</translation>
    </message>
    <message>
      <source>Dark</source>
      <translation>深色</translation>
    </message>
    <message>
      <source>Language</source>
      <translation>语言</translation>
    </message>
    <message>
      <source>Engine to begin with</source>
      <translation>默认引擎</translation>
    </message>
    <message>
      <source>Open the checkpoints of the last run again</source>
      <translation>重新打开上次运行时的检查点</translation>
    </message>
    <message>
      <source>Another language is spoken from the next start on.</source>
      <translation>更改语言后，下次启动时生效。</translation>
    </message>
    <message>
      <source>Limits of the rules</source>
      <translation>规则的界限</translation>
    </message>
  </context>
  <context>
    <name>Problems</name>
    <message>
      <source>Severity</source>
      <translation>严重程度</translation>
    </message>
    <message>
      <source>Problem</source>
      <translation>问题</translation>
    </message>
    <message>
      <source>Count</source>
      <translation>数量</translation>
    </message>
    <message>
      <source>Layers</source>
      <translation>层</translation>
    </message>
    <message>
      <source>Code</source>
      <translation>代码</translation>
    </message>
    <message>
      <source>error</source>
      <translation>错误</translation>
    </message>
    <message>
      <source>warning</source>
      <translation>警告</translation>
    </message>
    <message>
      <source>info</source>
      <translation>提示</translation>
    </message>
  </context>
  <context>
    <name>ProblemsPanel</name>
    <message>
      <source>Problems</source>
      <translation>问题</translation>
    </message>
    <message>
      <source>No rule found anything wrong. That proves nothing by itself: the prediction does not run the engine.</source>
      <translation>没有规则发现问题。但这本身并不能证明什么：预测并未运行引擎。</translation>
    </message>
  </context>
  <context>
    <name>RatioStrip</name>
    <message>
      <source>Ratio of the values by layer</source>
      <translation>各层数值的比值</translation>
    </message>
    <message>
      <source>{beyond} of {count} scales differ by more than {noise}</source>
      <translation>{count} 个缩放因子中有 {beyond} 个相差超过 {noise}</translation>
    </message>
    <message>
      <source>B / A by layer; band: calibration noise of {noise}</source>
      <translation>各层 B / A；色带：{noise} 的校准噪声</translation>
    </message>
  </context>
  <context>
    <name>RepairRow</name>
    <message>
      <source>How: {title}</source>
      <translation>方式：{title}</translation>
    </message>
    <message>
      <source>Value: {title}</source>
      <translation>值：{title}</translation>
    </message>
    <message>
      <source>Browse…</source>
      <translation>浏览…</translation>
    </message>
    <message>
      <source>Take the scales from</source>
      <translation>取缩放因子自</translation>
    </message>
    <message>
      <source>Scales (*.json *.safetensors);;All files (*)</source>
      <translation>缩放因子 (*.json *.safetensors);;所有文件 (*)</translation>
    </message>
  </context>
  <context>
    <name>RulesEditor</name>
    <message>
      <source>Renaming rules</source>
      <translation>改名规则</translation>
    </message>
    <message>
      <source>Rules as TOML</source>
      <translation>TOML 格式的规则</translation>
    </message>
    <message>
      <source>Status</source>
      <translation>状态</translation>
    </message>
    <message>
      <source>Checkpoint key</source>
      <translation>检查点中的键</translation>
    </message>
    <message>
      <source>→ Engine parameter</source>
      <translation>→ 引擎参数</translation>
    </message>
    <message>
      <source>What the rules make of the keys</source>
      <translation>规则对各键的作用</translation>
    </message>
    <message>
      <source>Open…</source>
      <translation>打开…</translation>
    </message>
    <message>
      <source>Save as…</source>
      <translation>另存为…</translation>
    </message>
    <message>
      <source>Use</source>
      <translation>使用</translation>
    </message>
    <message>
      <source>Predict with these rules, once saved</source>
      <translation>保存后用这些规则预测</translation>
    </message>
    <message>
      <source>Without rules</source>
      <translation>不用规则</translation>
    </message>
    <message>
      <source>Predict without rules again</source>
      <translation>恢复为不用规则的预测</translation>
    </message>
    <message>
      <source>Close</source>
      <translation>关闭</translation>
    </message>
    <message>
      <source>Trying the rules</source>
      <translation>正在试用规则</translation>
    </message>
    <message>
      <source>no tensor</source>
      <translation>没有张量</translation>
    </message>
    <message>
      <source>Mistaken</source>
      <translation>有误</translation>
    </message>
    <message>
      <source>{path} was not read: {error}</source>
      <translation>未能读取 {path}:{error}</translation>
    </message>
    <message>
      <source>Renaming rules: {name}</source>
      <translation>改名规则：{name}</translation>
    </message>
    <message>
      <source>{path} was not written: {error}</source>
      <translation>未能写入 {path}:{error}</translation>
    </message>
    <message>
      <source>Open rules</source>
      <translation>打开规则</translation>
    </message>
    <message>
      <source>Rules (*.toml)</source>
      <translation>规则 (*.toml)</translation>
    </message>
    <message>
      <source>Save rules</source>
      <translation>保存规则</translation>
    </message>
    <message>
      <source>trying the rules</source>
      <translation>正在试用规则</translation>
    </message>
  </context>
  <context>
    <name>Samples</name>
    <message>
      <source>Qwen3, 36 layers, FP8 by ModelOpt</source>
      <translation>Qwen3,36 层，ModelOpt 生成的 FP8</translation>
    </message>
    <message>
      <source>Loads cleanly: every layer receives its own k and v scale.</source>
      <translation>完全正常加载：每层都收到自己的 k 和 v 缩放因子。</translation>
    </message>
    <message>
      <source>Llama, 32 layers, one scale per head, by llm-compressor</source>
      <translation>Llama,32 层，每个头一个缩放因子，llm-compressor 生成</translation>
    </message>
    <message>
      <source>Loads cleanly per head too: each layer receives one k and one v scale for every KV head.</source>
      <translation>逐头也能正常加载：每层的每个 KV 头都收到一个 k 和一个 v 缩放因子。</translation>
    </message>
    <message>
      <source>DeepSeek-V3, 30 layers, FP8 by ModelOpt</source>
      <translation>DeepSeek-V3,30 层，ModelOpt 生成的 FP8</translation>
    </message>
    <message>
      <source>vLLM 0.33.0 drops every scale silently (MLA): all layers run at 1.0.</source>
      <translation>vLLM 0.33.0 悄然丢弃每个缩放因子(MLA)：所有层都以 1.0 运行。</translation>
    </message>
    <message>
      <source>Gemma 3, 26 layers, FP8 by Quark</source>
      <translation>Gemma 3,26 层，Quark 生成的 FP8</translation>
    </message>
    <message>
      <source>Makes vLLM 0.33.0 raise while it loads: a scale's name leads to the fused qkv projection, not to an attention parameter.</source>
      <translation>使 vLLM 0.33.0 在加载时引发异常：缩放因子的名称指向融合的 qkv 投影，而不是注意力参数。</translation>
    </message>
    <message>
      <source>Llama, FP8 attention by llm-compressor</source>
      <translation>Llama,llm-compressor 生成的 FP8 注意力</translation>
    </message>
    <message>
      <source>Loads, but holds uninitialised q scales: values that no calibration ever wrote.</source>
      <translation>可以加载，但含有未初始化的 q 缩放因子：从未由校准写入的值。</translation>
    </message>
  </context>
  <context>
    <name>Session</name>
    <message>
      <source>Opening {path}</source>
      <translation>正在打开 {path}</translation>
    </message>
    <message>
      <source>Predicting</source>
      <translation>正在预测</translation>
    </message>
    <message>
      <source>Judging anew</source>
      <translation>正在重新判断</translation>
    </message>
    <message>
      <source>Comparing with {path}</source>
      <translation>正在与 {path} 比较</translation>
    </message>
  </context>
  <context>
    <name>ShortcutHelp</name>
    <message>
      <source>Keyboard Shortcuts</source>
      <translation>键盘快捷键</translation>
    </message>
    <message>
      <source>In the coverage strip: arrow keys move, Shift extends, Ctrl+click adds.</source>
      <translation>在覆盖条中：方向键移动，Shift 扩展，Ctrl+单击添加。</translation>
    </message>
  </context>
  <context>
    <name>Status</name>
    <message>
      <source>loaded</source>
      <translation>已加载</translation>
    </message>
    <message>
      <source>The engine's attention layer receives this value.</source>
      <translation>引擎的注意力层收到此值。</translation>
    </message>
    <message>
      <source>copied</source>
      <translation>已复制</translation>
    </message>
    <message>
      <source>The layer has no value of its own and takes the other role's.</source>
      <translation>该层没有自己的值，取用另一角色的值。</translation>
    </message>
    <message>
      <source>suspicious</source>
      <translation>可疑</translation>
    </message>
    <message>
      <source>It arrives, but a finding doubts it.</source>
      <translation>它已到达，但有一项发现对其存疑。</translation>
    </message>
    <message>
      <source>overridden</source>
      <translation>被覆盖</translation>
    </message>
    <message>
      <source>It is loaded, and then the engine sets 1.0.</source>
      <translation>它被加载，随后引擎将其设为 1.0。</translation>
    </message>
    <message>
      <source>missing</source>
      <translation>缺失</translation>
    </message>
    <message>
      <source>The layer expects a value, and no tensor brings one.</source>
      <translation>该层需要一个值，但没有张量提供。</translation>
    </message>
    <message>
      <source>dropped</source>
      <translation>被丢弃</translation>
    </message>
    <message>
      <source>The engine discards this tensor; the layer runs without it.</source>
      <translation>引擎丢弃此张量；该层在没有它的情况下运行。</translation>
    </message>
    <message>
      <source>ignored</source>
      <translation>被忽略</translation>
    </message>
    <message>
      <source>The engine does not know the name and skips it silently.</source>
      <translation>引擎不认识此名称，悄然跳过。</translation>
    </message>
    <message>
      <source>raises</source>
      <translation>引发异常</translation>
    </message>
    <message>
      <source>The engine stops with an exception here.</source>
      <translation>引擎在此处因异常而停止。</translation>
    </message>
    <message>
      <source>unreadable</source>
      <translation>无法读取</translation>
    </message>
    <message>
      <source>The file gives no value for this tensor.</source>
      <translation>文件没有给出此张量的值。</translation>
    </message>
    <message>
      <source>not reached</source>
      <translation>未到达</translation>
    </message>
    <message>
      <source>The load ends before this tensor's turn, or it is not known.</source>
      <translation>加载在轮到此张量之前就已结束，或情况未知。</translation>
    </message>
    <message>
      <source>no scale</source>
      <translation>无缩放因子</translation>
    </message>
    <message>
      <source>Nothing is stored here and nothing is expected.</source>
      <translation>此处没有存储，也不需要。</translation>
    </message>
  </context>
  <context>
    <name>StatusBar</name>
    <message>
      <source>Progress</source>
      <translation>进度</translation>
    </message>
    <message>
      <source>Cancel this job</source>
      <translation>取消此任务</translation>
    </message>
    <message>
      <source>{count} file</source>
      <translation>{count} 个文件</translation>
    </message>
    <message>
      <source>{count} files</source>
      <translation>{count} 个文件</translation>
    </message>
    <message>
      <source>{count} tensor</source>
      <translation>{count} 个张量</translation>
    </message>
    <message>
      <source>{count} tensors</source>
      <translation>{count} 个张量</translation>
    </message>
    <message>
      <source>{count} scale</source>
      <translation>{count} 个缩放因子</translation>
    </message>
    <message>
      <source>{count} scales</source>
      <translation>{count} 个缩放因子</translation>
    </message>
    <message>
      <source>{count} faulty file</source>
      <translation>{count} 个损坏的文件</translation>
    </message>
    <message>
      <source>{count} faulty files</source>
      <translation>{count} 个损坏的文件</translation>
    </message>
    <message>
      <source>{count} error</source>
      <translation>{count} 个错误</translation>
    </message>
    <message>
      <source>{count} errors</source>
      <translation>{count} 个错误</translation>
    </message>
    <message>
      <source>{count} warning</source>
      <translation>{count} 个警告</translation>
    </message>
    <message>
      <source>{count} warnings</source>
      <translation>{count} 个警告</translation>
    </message>
    <message>
      <source>no problems</source>
      <translation>没有问题</translation>
    </message>
    <message>
      <source>CUDA driver found</source>
      <translation>已找到 CUDA 驱动</translation>
    </message>
    <message>
      <source>The GPU tab lists the devices</source>
      <translation>GPU 标签页列出了设备</translation>
    </message>
    <message>
      <source>no CUDA driver</source>
      <translation>没有 CUDA 驱动</translation>
    </message>
    <message>
      <source>libcuda.so.1 is not on this machine; the loader can run on the CPU</source>
      <translation>此机器上没有 libcuda.so.1；加载器可以在 CPU 上运行</translation>
    </message>
    <message>
      <source>no CUDA device</source>
      <translation>没有 CUDA 设备</translation>
    </message>
    <message>
      <source>Cancelling {job} …</source>
      <translation>正在取消 {job}…</translation>
    </message>
  </context>
  <context>
    <name>Story</name>
    <message>
      <source>No rule matches</source>
      <translation>没有规则匹配</translation>
    </message>
    <message>
      <source>The engine looks for the name as it stands.</source>
      <translation>引擎按原样查找此名称。</translation>
    </message>
    <message>
      <source>In the checkpoint</source>
      <translation>在检查点中</translation>
    </message>
    <message>
      <source>no tensor</source>
      <translation>没有张量</translation>
    </message>
    <message>
      <source>No tensor of the checkpoint reaches {parameter}.</source>
      <translation>检查点中没有张量到达 {parameter}。</translation>
    </message>
    <message>
      <source>file</source>
      <translation>文件</translation>
    </message>
    <message>
      <source>stored as</source>
      <translation>存储为</translation>
    </message>
    <message>
      <source>value</source>
      <translation>值</translation>
    </message>
    <message>
      <source>quantity</source>
      <translation>量</translation>
    </message>
    <message>
      <source>convention</source>
      <translation>约定</translation>
    </message>
    <message>
      <source>{shown}, … ({count} values)</source>
      <translation>{shown}, … ({count} 个值)</translation>
    </message>
    <message>
      <source>pattern</source>
      <translation>模式</translation>
    </message>
    <message>
      <source>replaced by</source>
      <translation>替换为</translation>
    </message>
    <message>
      <source>nothing</source>
      <translation>无</translation>
    </message>
    <message>
      <source>applied by</source>
      <translation>应用者</translation>
    </message>
    <message>
      <source>Rule drops the tensor</source>
      <translation>规则丢弃此张量</translation>
    </message>
    <message>
      <source>Rule renames</source>
      <translation>规则改名</translation>
    </message>
    <message>
      <source>shadowed</source>
      <translation>被遮蔽</translation>
    </message>
    <message>
      <source>excluded</source>
      <translation>被排除</translation>
    </message>
    <message>
      <source>one part off</source>
      <translation>差一部分</translation>
    </message>
    <message>
      <source>other backend</source>
      <translation>其他后端</translation>
    </message>
    <message>
      <source>not asked</source>
      <translation>未询问</translation>
    </message>
    <message>
      <source>Nearly matched</source>
      <translation>几乎匹配</translation>
    </message>
    <message>
      <source>rule</source>
      <translation>规则</translation>
    </message>
    <message>
      <source>held by</source>
      <translation>持有者</translation>
    </message>
    <message>
      <source>layer</source>
      <translation>层</translation>
    </message>
    <message>
      <source>created by</source>
      <translation>创建者</translation>
    </message>
    <message>
      <source>parameter shape</source>
      <translation>参数形状</translation>
    </message>
    <message>
      <source>Parameter found</source>
      <translation>找到参数</translation>
    </message>
    <message>
      <source>Parameter not looked for</source>
      <translation>未查找参数</translation>
    </message>
    <message>
      <source>none</source>
      <translation>无</translation>
    </message>
    <message>
      <source>the layer has</source>
      <translation>该层拥有</translation>
    </message>
    <message>
      <source>it waits for</source>
      <translation>它等待</translation>
    </message>
    <message>
      <source>named so</source>
      <translation>同名者</translation>
    </message>
    <message>
      <source>No such parameter</source>
      <translation>没有此参数</translation>
    </message>
    <message>
      <source>exception</source>
      <translation>异常</translation>
    </message>
    <message>
      <source>next</source>
      <translation>下一步</translation>
    </message>
    <message>
      <source>What {engine} does</source>
      <translation>{engine} 的处理</translation>
    </message>
    <message>
      <source>After loading</source>
      <translation>加载之后</translation>
    </message>
    <message>
      <source>from the checkpoint</source>
      <translation>来自检查点</translation>
    </message>
    <message>
      <source>copied from the other role</source>
      <translation>复制自另一角色</translation>
    </message>
    <message>
      <source>the engine's default: nothing arrived</source>
      <translation>引擎的默认值：什么都没有到达</translation>
    </message>
    <message>
      <source>set by the engine</source>
      <translation>由引擎设定</translation>
    </message>
    <message>
      <source>per head</source>
      <translation>每个头</translation>
    </message>
    <message>
      <source>The layer ends with nothing</source>
      <translation>该层最终什么也没有</translation>
    </message>
    <message>
      <source>The load is over before it gets a value.</source>
      <translation>在它得到值之前加载就已结束。</translation>
    </message>
    <message>
      <source>The layer ends with</source>
      <translation>该层最终持有</translation>
    </message>
    <message>
      <source>consequence</source>
      <translation>后果</translation>
    </message>
    <message>
      <source>fix</source>
      <translation>修复</translation>
    </message>
  </context>
  <context>
    <name>Strip</name>
    <message>
      <source>Coverage: roles by layers</source>
      <translation>覆盖：角色 × 层</translation>
    </message>
    <message>
      <source>layer</source>
      <translation>层</translation>
    </message>
    <message>
      <source>layer {layer}, {path}</source>
      <translation>第 {layer} 层，{path}</translation>
    </message>
    <message>
      <source>ends with {value}</source>
      <translation>最终为 {value}</translation>
    </message>
  </context>
  <context>
    <name>Text</name>
    <message>
      <source>scalar</source>
      <translation>标量</translation>
    </message>
  </context>
  <context>
    <name>Waiting</name>
    <message>
      <source>Try again</source>
      <translation>重试</translation>
    </message>
    <message>
      <source>Back to the start page</source>
      <translation>回到起始页</translation>
    </message>
    <message>
      <source>Copy details</source>
      <translation>复制详情</translation>
    </message>
    <message>
      <source>Reading headers, configs and scales …</source>
      <translation>正在读取头部、配置和缩放因子…</translation>
    </message>
    <message>
      <source>Opening was cancelled.</source>
      <translation>打开已取消。</translation>
    </message>
  </context>
  <context>
    <name>Welcome</name>
    <message>
      <source>Will the engine really receive these KV-cache scales?</source>
      <translation>引擎真的会收到这些 KV 缓存缩放因子吗？</translation>
    </message>
    <message>
      <source>KVScope opens a checkpoint, says what each attention layer ends with in the engine you choose, rule by rule why, and writes a copy that loads as intended.</source>
      <translation>KVScope 打开检查点，说明在所选引擎中每个注意力层最终持有什么，逐条规则说明原因，并能写出一份按预期加载的副本。</translation>
    </message>
    <message>
      <source>Bundled samples</source>
      <translation>内置示例</translation>
    </message>
    <message>
      <source>Recent</source>
      <translation>最近打开</translation>
    </message>
    <message>
      <source>Checkpoints you open are listed here.</source>
      <translation>您打开的检查点会列在这里。</translation>
    </message>
  </context>
  <context>
    <name>WhyPanel</name>
    <message>
      <source>Why</source>
      <translation>原因</translation>
    </message>
    <message>
      <source>Copy the story as text</source>
      <translation>以文本形式复制经过</translation>
    </message>
    <message>
      <source>Copy the story as JSON</source>
      <translation>以 JSON 形式复制经过</translation>
    </message>
    <message>
      <source>This tensor is no KV-cache scale: nothing is predicted for it.</source>
      <translation>此张量不是 KV 缓存缩放因子：对它没有预测。</translation>
    </message>
    <message>
      <source>Select a key to see, rule by rule, where it ends and why.</source>
      <translation>选择一个键，逐条规则查看它的去向和原因。</translation>
    </message>
    <message>
      <source>and {count} more selected</source>
      <translation>另选中 {count} 个</translation>
    </message>
  </context>
  <context>
    <name>Window</name>
    <message>
      <source>Getting ready</source>
      <translation>正在准备</translation>
    </message>
    <message>
      <source>Open in a tab of its own</source>
      <translation>在新标签页中打开</translation>
    </message>
    <message>
      <source>Compare with {name}</source>
      <translation>与 {name} 比较</translation>
    </message>
  </context>
  <context>
    <name>Workspace</name>
    <message>
      <source>Details</source>
      <translation>详情</translation>
    </message>
    <message>
      <source>Problems</source>
      <translation>问题</translation>
    </message>
    <message>
      <source>Engines</source>
      <translation>引擎</translation>
    </message>
    <message>
      <source>Backends</source>
      <translation>后端</translation>
    </message>
    <message>
      <source>Plot</source>
      <translation>图表</translation>
    </message>
    <message>
      <source>Compare</source>
      <translation>比较</translation>
    </message>
    <message>
      <source>Export preview</source>
      <translation>导出预览</translation>
    </message>
    <message>
      <source>GPU</source>
      <translation>GPU</translation>
    </message>
    <message>
      <source>Config</source>
      <translation>配置</translation>
    </message>
    <message>
      <source>Log</source>
      <translation>日志</translation>
    </message>
    <message>
      <source>Continued from the top</source>
      <translation>已从头继续</translation>
    </message>
    <message>
      <source>Continued from the bottom</source>
      <translation>已从尾继续</translation>
    </message>
    <message>
      <source>Opening</source>
      <translation>正在打开</translation>
    </message>
    <message>
      <source>Cancelled</source>
      <translation>已取消</translation>
    </message>
    <message>
      <source>Cannot be opened</source>
      <translation>无法打开</translation>
    </message>
    <message>
      <source>{key} is not in this checkpoint</source>
      <translation>{key} 不在此检查点中</translation>
    </message>
    <message>
      <source>{name} in {engine}</source>
      <translation>{engine} 中的 {name}</translation>
    </message>
    <message>
      <source>Problems ({count})</source>
      <translation>问题 ({count})</translation>
    </message>
  </context>
</TS>
